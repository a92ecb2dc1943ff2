"""Sums in one order on every machine: NumPy's own depend on the layout in memory, and BLAS's on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sum_in_order(values: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
    """Add up along an axis, one term after the other, in float64; an empty sum is 0.

    >>> float(sum_in_order(np.array([1e16, 1.0, -1e16])))
    0.0
    """
    if values.shape[axis] == 0:
        return np.zeros(np.delete(np.array(values.shape), axis))
    result: NDArray[np.float64] = np.add.accumulate(values, axis=axis, dtype=np.float64).take(-1, axis=axis)
    return result
