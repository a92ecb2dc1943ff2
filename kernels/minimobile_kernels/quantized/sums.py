"""The sum of two maps of bytes."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.quantized.integers import (
    limit,
    load_bytes,
    load_integers,
    plus,
    scale_twice_rounded,
    spread,
    store_bytes,
)
from minimobile_kernels.quantized.requantize import SCALES
from minimobile_kernels.simd import LANES, keep_apart
from minimobile_kernels.step import plane_count, share


@inlined
def add(step: Any, scales: Any, arena: Any, part: int, parts: int) -> None:
    """Add two maps of bytes. Defined by reference.add.

    Shapes: x, y, out: maps of one shape; scales: three rows of `SCALES`, of x, y and the sum.
    """
    vectors = plane_count(step.channels, LANES) * step.batch * step.height * step.width
    first, last = share(vectors, 1, part, parts)
    _add(step, scales, arena, first, last)


@compiled
def _add(step: Any, scales: Any, arena: Any, first: int, last: int) -> None:
    keep_apart()
    row = len(SCALES) * LANES
    x_table, y_table, out_table = step.scales + LANES, step.scales + row + LANES, step.scales + 2 * row + LANES
    x_by, x_left, x_right = _load_scale(scales, x_table)
    y_by, y_left, y_right = _load_scale(scales, y_table)
    out_by, out_left, out_right = _load_scale(scales, out_table)
    x_zero, y_zero, out_zero = spread(-step.x_zero), spread(-step.y_zero), spread(step.out_zero)
    low, high = spread(step.low), spread(step.high)
    for vector in range(first, last):
        x = plus(load_bytes(arena, step.x + vector * LANES), x_zero)
        y = plus(load_bytes(arena, step.y + vector * LANES), y_zero)
        total = plus(scale_twice_rounded(x, x_by, x_left, x_right), scale_twice_rounded(y, y_by, y_left, y_right))
        result = plus(scale_twice_rounded(total, out_by, out_left, out_right), out_zero)
        store_bytes(arena, step.out + vector * LANES, limit(result, low, high))


@inlined
def _load_scale(scales: Any, table: int) -> Any:
    return load_integers(scales, table), load_integers(scales, table + LANES), load_integers(scales, table + 2 * LANES)
