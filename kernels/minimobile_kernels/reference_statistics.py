"""The definition of `statistics.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 8192
"""How many bins the compiled form has."""


def count_values(x: NDArray[Any], sums: NDArray[Any], counts: NDArray[Any], width: float) -> None:
    """Add every channel's values to `sums`, in order, and count them in bins of `width` around zero.

    Shapes: x (pixels, C), sums (C), counts (bins).

    >>> sums, counts = np.zeros(2), np.zeros(4, np.int64)
    >>> count_values(np.array([[0.0, -1.5], [1.5, 2.0]], np.float32), sums, counts, 1.0)
    >>> sums, counts
    (array([1.5, 0.5]), array([1, 0, 1, 2]))
    """
    values = x.astype(np.float64)
    sums[:] = np.add.accumulate(np.concatenate([sums[None], values]))[-1]
    places = np.floor(values / width).astype(np.int64) + len(counts) // 2
    counts += np.bincount(np.minimum(places, len(counts) - 1).reshape(-1), minlength=len(counts))
