"""The sum of two maps of bytes."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.quantized.integers import (
    limit,
    load_bytes,
    load_integers,
    plus,
    spread,
    store_bytes,
    times,
)
from minimobile_kernels.quantized.requantize import DOUBLE, SCALES, SINGLE
from minimobile_kernels.quantized.scaling import scale_once_rounded, scale_twice_rounded, shift_rounded
from minimobile_kernels.simd import LANES, keep_apart
from minimobile_kernels.step import plane_count, share


@inlined
def add(step: Any, scales: Any, arena: Any, part: int, parts: int) -> None:
    """Add two maps of bytes. Defined by reference.add.

    Shapes: x, y, out: maps of one shape; scales: three rows of `SCALES`, of x, y and the sum. Rounded as "float" says,
    the multipliers of x and y are those of reference.whole_factors, and the shift is the sum's.
    """
    vectors = plane_count(step.channels, LANES) * step.batch * step.height * step.width
    first, last = share(vectors, 1, part, parts)
    _add(step, scales, arena, first, last)


@compiled
def _add(step: Any, scales: Any, arena: Any, first: int, last: int) -> None:
    keep_apart()
    row, rounding = len(SCALES) * LANES, step.rounding
    x_table, y_table, out_table = step.scales + LANES, step.scales + row + LANES, step.scales + 2 * row + LANES
    x_by, x_left, x_right = _load_scale(scales, x_table)
    y_by, y_left, y_right = _load_scale(scales, y_table)
    out_by, out_left, out_right = _load_scale(scales, out_table)
    x_zero, y_zero, out_zero = spread(-step.x_zero), spread(-step.y_zero), spread(step.out_zero)
    low, high = spread(step.low), spread(step.high)
    for vector in range(first, last):
        x = plus(load_bytes(arena, step.x + vector * LANES), x_zero)
        y = plus(load_bytes(arena, step.y + vector * LANES), y_zero)
        if rounding == DOUBLE:
            total = plus(scale_twice_rounded(x, x_by, x_left, x_right), scale_twice_rounded(y, y_by, y_left, y_right))
            result = scale_twice_rounded(total, out_by, out_left, out_right)
        elif rounding == SINGLE:
            total = plus(scale_once_rounded(x, x_by, x_left, x_right), scale_once_rounded(y, y_by, y_left, y_right))
            result = scale_once_rounded(total, out_by, out_left, out_right)
        else:
            result = shift_rounded(plus(times(x, x_by), times(y, y_by)), out_right)
        store_bytes(arena, step.out + vector * LANES, limit(plus(result, out_zero), low, high))


@inlined
def _load_scale(scales: Any, table: int) -> Any:
    return load_integers(scales, table), load_integers(scales, table + LANES), load_integers(scales, table + 2 * LANES)
