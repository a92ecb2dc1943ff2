"""Activations: their formulas, the same bits compiled, NaN, and one rounding."""

import math

import numpy as np
import pytest
from cases import assert_engines_agree

from minimobile_kernels import elementwise

FUNCTIONS = [*elementwise.CLAMPS, *elementwise.CURVES]
POINTS = np.concatenate([np.linspace(-30, 30, 4001), [1e-12, -1e-12, 0.019, 0.021, 8.4, -8.4, 8.6, -8.6, 700, -700]])

EXACT = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
    "tanh": math.tanh,
    "silu": lambda x: x / (1 + math.exp(-x)) if x > -700 else 0.0,
    "hardswish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_formula(function):
    found = elementwise.activate(POINTS, function)
    expected = np.array([EXACT[function](x) for x in POINTS.tolist()])
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_gives_the_same_bits(function):
    assert_engines_agree("activation", (2, 5, 7, 11), function=function)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_stays_and_limits_are_sane(function):
    found = elementwise.activate(np.array([np.nan, np.inf, 3e38], np.float32), function)
    assert np.isnan(found[0])
    limit = {"relu6": 6.0, "sigmoid": 1.0, "tanh": 1.0}.get(function, np.inf)
    assert found[1] == limit
    assert found[2] == min(limit, float(np.float32(3e38))) or function == "hardswish"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rounded_once_for_float32(function):
    x = POINTS.astype(np.float32)
    wide = elementwise.activate(x.astype(np.float64), function)
    assert np.array_equal(elementwise.activate(x, function), wide.astype(np.float32))
