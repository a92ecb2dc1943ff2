"""Activation functions: one formula each, in float64 and rounded once, for NumPy arrays and for compiled scalars alike.

`maps.py` tells the compiler of them. It is not imported here: who only reads a file need not wait for Numba.

The exponential and the error function are written out here from basic operations, because those of NumPy, of the C
library and of LLVM differ in their last bits, and the engine promises the same bits everywhere.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = Any  # a float64 array, or in compiled code one float64

CLAMPS = {"linear": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
CURVES = ("leaky_relu", "silu", "hardswish", "gelu", "sigmoid", "tanh")
LEAKY_RELU, SILU, HARDSWISH, GELU, SIGMOID, TANH = range(len(CURVES))

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693147180369123816490  # ln 2 in two parts: the first has 33 bits, so that its product with k is exact
LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476
SUM_WORDS = 68  # of 32 bits, in which the exact sum of 2**30 float64 has room
TAYLOR = tuple(1.0 / math.factorial(n) for n in range(14, -1, -1))
# exp(z^2) erfc(z) on 0 <= z <= 6 as a polynomial in u = (2/(2+z) - 0.625) / 0.375: a Chebyshev interpolation of degree
# 20 computed with 40 digits; its largest relative error is 1.3e-15.
_ERFC = (  # highest power first
    -7.106929108334487e-13, 9.395932046122793e-11, -2.9766387405215563e-10, -2.776307855150726e-10,
    3.3658288322023846e-09, -7.352472518437774e-09, -6.513118485109626e-09, 8.64694333890086e-08,
    -1.9838585196813037e-07, -2.823393880271042e-07, 2.838143104316882e-06, -4.271117396357692e-06,
    -2.2700159899704513e-05, 0.00010054189868280341, 0.00013358426953576807, -0.0016653643667956324,
    -0.0016702444046923937, 0.0329934294778909, 0.16940759095449764, 0.42218758361344777, 0.3785374169292397,
)  # fmt: skip


def activate(x: NDArray[Any], function: str) -> NDArray[Any]:
    """Apply the named activation to every element of a float32 or float64 array of any shape. NaN stays NaN."""
    with np.errstate(all="ignore"):
        if function in CLAMPS:
            low, high = CLAMPS[function]
            raised = np.where(x < low, x.dtype.type(low), x)
            return np.where(raised > high, x.dtype.type(high), raised)
        curve = (leaky_relu, silu, hardswish, gelu, sigmoid, tanh)[CURVES.index(function)]
        return np.asarray(curve(x.astype(np.float64))).astype(x.dtype)


def choose(condition: Values, yes: Values, no: Values) -> Values:
    """Return `yes` where the condition holds, else `no`: `np.where` for arrays, a branch for a compiled scalar."""
    return np.where(condition, yes, no)


def exponential(x: Values) -> Values:
    """Return e**x: 2**k times a Taylor polynomial on |r| <= ln(2)/2, where x = k ln 2 + r. NaN stays NaN.

    Beyond |x| = 700 the result is infinity or zero: no float32 can tell.
    """
    inside = choose(np.abs(x) < 700.0, x, 0.0)
    k = np.floor(inside * LOG2_E + 0.5)
    r = (inside - k * LN2_HIGH) - k * LN2_LOW
    series = 0.0 * r
    for coefficient in TAYLOR:
        series = series * r + coefficient
    limit = choose(x > 0.0, math.inf, choose(x < 0.0, 0.0, x))
    return choose(np.abs(x) < 700.0, np.ldexp(series, np.int32(k)), limit)


def sigmoid(x: Values) -> Values:
    """Return 1 / (1 + e**-x)."""
    return 1.0 / (1.0 + exponential(-x))


def tanh(x: Values) -> Values:
    """Return 2 / (1 + e**-2x) - 1; below 0.02, where that cancels, the Taylor series up to x**9."""
    square = x * x
    series = x * (1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
    return choose(np.abs(x) < 0.02, series, 2.0 / (1.0 + exponential(-2.0 * x)) - 1.0)


def silu(x: Values) -> Values:
    """Return x * sigmoid(x). Source: Elfwing et al. (arXiv 1702.03118)."""
    return x * sigmoid(x)


def hardswish(x: Values) -> Values:
    """Return x * min(max(x + 3, 0), 6) / 6. Source: Howard et al., MobileNetV3 (arXiv 1905.02244), section 5.2."""
    gate = choose(x + 3.0 < 0.0, 0.0, choose(x + 3.0 > 6.0, 6.0, x + 3.0))
    return x * gate / 6.0


def leaky_relu(x: Values) -> Values:
    """Return x where it is positive, else x / 100 (PyTorch's default slope)."""
    return choose(x < 0.0, x * 0.01, x)


def gelu(x: Values) -> Values:
    """Return x * (1 + erf(x / sqrt 2)) / 2. Source: Hendrycks and Gimpel (arXiv 1606.08415)."""
    size = np.abs(x) * _SQRT_HALF
    z = choose(size < 6.0, size, 6.0)
    u = (2.0 / (2.0 + z) - 0.625) / 0.375
    tail = 0.0 * u
    for coefficient in _ERFC:
        tail = tail * u + coefficient
    tail = choose(size >= 6.0, 0.0, tail * exponential(-z * z))  # erfc(|x| / sqrt 2)
    return 0.5 * x * choose(x < 0.0, tail, 2.0 - tail)
