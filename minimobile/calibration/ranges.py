"""Which numbers the bytes of a map stand for: the papers' ways to choose, and the grid that follows from a range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from minimobile.calibration.observation import Observed
from minimobile.calibration.sums import sum_in_order
from minimobile.quantized.network import Tensor

Range = tuple[float, float]
STEPS = 255
_SHARES = np.arange(16, 129) / 128  # of the observed limit; squared error is flat near its minimum


def min_max(observed: Observed) -> Range:
    """Return the least and the largest value of all pictures. Source: Nagel et al. 2021, section 3.1."""
    return observed.minimum, observed.maximum


def moving_average(observed: Observed) -> Range:
    """Return the averages of the pictures' least and largest values. Source: Jacob et al. 2018, section 3.1."""
    return observed.average


def squared_error(observed: Observed) -> Range:
    """Return the range that loses least: cutting off rare values makes the steps of all others smaller.

    The sum of (x - q(x))**2 over the counted values is least among 113 shares of each limit, the upper first, then the
    lower, and both once more. Source: Nagel et al. 2021 (arXiv 2106.08295), section 3.1, "mean squared error".
    """
    kept = np.flatnonzero(observed.counts)
    values, counts = observed.values()[kept], observed.counts[kept].astype(np.float64)
    low, high = full = include_zero(min_max(observed))
    for _ in range(2):
        if full[1] > 0:
            high = min((full[1] * share for share in _SHARES[::-1]), key=lambda end: _loss(values, counts, (low, end)))
        if full[0] < 0:
            low = min((full[0] * share for share in _SHARES[::-1]), key=lambda end: _loss(values, counts, (end, high)))
    return low, high


RANGES: Mapping[str, Callable[[Observed], Range]] = {
    "min_max": min_max,
    "moving_average": moving_average,
    "squared_error": squared_error,
}


def include_zero(limits: Range) -> Range:
    """Return a range with 0 in it, which padding and dead channels need; one that holds nothing else is made 0 to 1."""
    low, high = min(float(limits[0]), 0.0), max(float(limits[1]), 0.0)
    return (low, high) if high - low > 2.0**-30 else (0.0, 1.0)


def make_grid(name: str, limits: Range, dtype: np.dtype[np.uint8 | np.int8]) -> Tensor:
    """Return a tensor without shape whose 256 bytes stand for a range, moved so that 0 is one of them."""
    low, high = include_zero(limits)
    scale = np.float32((high - low) / STEPS)
    least = int(np.iinfo(dtype).min)
    zero = math.floor(least - low / float(scale) + 0.5)
    zeros = np.array([min(max(zero, least), least + STEPS)], np.int64)
    return Tensor(name, (), np.dtype(dtype), np.array([scale], np.float32), zeros)


def _loss(values: NDArray[np.float64], counts: NDArray[np.float64], limits: Range) -> float:
    """Return the summed squared error of counted values, rounded to the 256 numbers of a range."""
    low, high = limits
    step = (high - low) / STEPS
    zero = math.floor(-low / step + 0.5)
    rounded = (np.clip(np.rint(values / step) + zero, 0, STEPS) - zero) * step
    return float(sum_in_order(counts * (values - rounded) ** 2))
