"""The clipped normal distribution, from additions and multiplications alone: the same bits on every machine.

Libraries' exp and erf differ in the last bit from one to the next, and a bias rounds by its last bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_FAR = 6.0  # deviations; beyond lie 2e-9 of all values
_HALVINGS = 6
_INVERSE_ROOT = 0.3989422804014327  # 1 / sqrt(2 pi)


def density(z: Doubles) -> Doubles:
    """Return exp(-z * z / 2) / sqrt(2 pi).

    >>> density(np.array([0.0, 1.0])).round(6)
    array([0.398942, 0.241971])
    """
    nearest = np.clip(z, -_FAR, _FAR)
    x = -nearest * nearest / 2 / 2**_HALVINGS  # in -0.29 to 0
    total = term = np.ones_like(x)
    for n in range(1, 16):
        term = term * x / n
        total = total + term
    for _ in range(_HALVINGS):
        total = total * total
    return np.where(np.abs(z) > _FAR, 0.0, total * _INVERSE_ROOT)


def cumulative(z: Doubles) -> Doubles:
    """Return the share of a standard normal distribution below z: 1/2 + density * (z + z**3/3 + z**5/(3*5) + ...).

    >>> cumulative(np.array([-9.0, 0.0, 1.0])).round(6)
    array([0.      , 0.5     , 0.841345])
    """
    nearest = np.clip(z, -_FAR, _FAR)
    total = term = nearest
    for n in range(3, 200, 2):
        term = term * nearest * nearest / n
        total = total + term
    inside = 0.5 + density(nearest) * total
    return np.where(np.abs(z) > _FAR, (z > 0) * 1.0, inside)


def clipped_moments(mean: Doubles, deviation: Doubles, low: float, high: float) -> tuple[Doubles, Doubles]:
    """Return mean and variance of normal values that are clipped to low..high, either of which may be infinite.

    Source: Nagel et al. 2019 (arXiv 1906.04721), appendix C. Shapes: mean, deviation (C), and the results.

    >>> mean, variance = clipped_moments(np.zeros(1), np.ones(1), 0.0, np.inf)
    >>> mean.round(6), variance.round(6)
    (array([0.398942]), array([0.340845]))
    """
    spread = np.maximum(deviation, 1e-12)
    first = second = np.zeros_like(mean)
    shares, densities = [], []
    for end in (low, high):
        z = (end - mean) / spread
        shares.append(cumulative(z))
        densities.append(density(z))
        if math.isfinite(end):
            clipped = shares[-1] if end == low else 1 - shares[-1]
            sign = 1 if end == low else -1
            first = first + end * clipped + sign * spread * densities[-1]
            second = second + end * end * clipped + sign * spread * (mean + end) * densities[-1]
    inside = shares[1] - shares[0]
    first = first + mean * inside
    second = second + (mean * mean + spread * spread) * inside
    return first, np.maximum(second - first * first, 0.0)
