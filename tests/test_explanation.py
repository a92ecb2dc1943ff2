"""Counting the floats between two; what a written-out value consists of is tested in `test_trace.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimobile.tracing.explanation import count_ulps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_nearest_float_is_one_ulp_away(dtype: Any) -> None:
    limits = np.finfo(dtype)
    x = np.array([1, -1, 0, limits.smallest_subnormal, -limits.smallest_subnormal, limits.max, limits.min], dtype)
    with np.errstate(over="ignore"):
        beside = np.nextafter(x, dtype(np.inf))
    assert count_ulps(x, beside).tolist() == count_ulps(beside, x).tolist() == [1] * 7
    assert count_ulps(-limits.smallest_subnormal, limits.smallest_subnormal) == 2
    assert count_ulps(np.array([-0.0], dtype), np.array([0.0], dtype)).tolist() == [0]
    whole = int(np.array(np.inf, dtype).view(f"i{x.itemsize}"))
    assert int(count_ulps(dtype(-np.inf), dtype(np.inf))) == 2 * whole, "more than an int64 holds"


def test_all_nans_are_one_and_far_from_numbers() -> None:
    nan = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    assert count_ulps(nan, nan[::-1]).tolist() == [0, 0]
    assert all(count_ulps(nan, np.float32([1, 1])) > 2**23)
