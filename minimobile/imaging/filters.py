"""Pillow's filters: which pixels each pixel of a resized picture is made of, and the weights of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling

from minimobile_kernels.reference import RESAMPLING_BITS

_Values = NDArray[np.float64]


class Taps(NamedTuple):
    """For each output the first input, and the integer weights of as many from there on: shapes (n) and (n, taps)."""

    starts: NDArray[np.int64]
    weights: NDArray[np.int32]

    @property
    def reach(self) -> tuple[int, int]:
        """The first input that any output reads, and the one behind the last."""
        return int(self.starts.min()), int(self.starts.max()) + self.weights.shape[1]

    def shift(self, begin: int) -> Taps:
        """Count inputs from `begin` on."""
        return Taps(self.starts - begin, self.weights)


def find_taps(n_in: int, n_out: int, first: int, count: int, resample: int) -> Taps:
    """Compute, in Pillow's order of operations, the taps of the outputs first..first + count among n_out.

    Outputs with fewer taps than others have weights of zero beside them.
    """
    positions = np.arange(first, first + count)
    if n_in == n_out:  # Pillow leaves the pass out
        return Taps(positions, np.full((count, 1), 1 << RESAMPLING_BITS, np.int32))
    support, weigh = FILTERS[resample]
    scale = n_in / n_out
    widening = max(scale, 1.0)
    support *= widening
    center = (positions + 0.5) * scale
    begin = np.maximum((center - support + 0.5).astype(np.int64), 0)
    end = np.minimum((center + support + 0.5).astype(np.int64), n_in)
    most = int((end - begin).max())
    starts = np.minimum(begin, n_in - most)
    inputs = starts[:, None] + np.arange(most)
    weights = weigh((inputs - center[:, None] + 0.5) * (1.0 / widening))
    weights[(inputs < begin[:, None]) | (inputs >= end[:, None])] = 0
    total = np.zeros(count)
    for tap in range(most):  # one after the other: NumPy's sum adds in pairs
        total += weights[:, tap]
    fixed = weights / total[:, None] * (1 << RESAMPLING_BITS)
    return Taps(starts, (fixed + np.copysign(0.5, fixed)).astype(np.int32))


def _box(x: _Values) -> _Values:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _triangle(x: _Values) -> _Values:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: _Values) -> _Values:
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _hamming(x: float) -> float:
    if x == 0.0:
        return 1.0
    if abs(x) >= 1.0:
        return 0.0
    x = abs(x) * math.pi
    return math.sin(x) / x * (0.54 + 0.46 * math.cos(x))


def _sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _each(weigh: Callable[[float], float]) -> Callable[[_Values], _Values]:
    """Make a filter of the C library's sine, which is not always NumPy's."""
    return np.vectorize(weigh, otypes=[np.float64])


FILTERS: Mapping[int, tuple[float, Callable[[_Values], Any]]] = {
    Resampling.BOX: (0.5, _box),
    Resampling.BILINEAR: (1.0, _triangle),
    Resampling.HAMMING: (1.0, _each(_hamming)),
    Resampling.BICUBIC: (2.0, _cubic),
    Resampling.LANCZOS: (3.0, _each(_lanczos)),
}
QUICK_FILTERS = frozenset({Resampling.BOX, Resampling.BILINEAR, Resampling.BICUBIC})
"""Those whose weights take NumPy less time than Pillow takes to resize a photograph."""
