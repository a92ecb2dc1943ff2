"""Pooling of maps of bytes."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.quantized.integers import load_bytes, plus, spread, store_integers
from minimobile_kernels.simd import LANES, keep_apart
from minimobile_kernels.step import plane_count, share


@inlined
def average_pool2d(step: Any, arena: Any, sums: Any, part: int, parts: int, place: int) -> None:
    """Average windows that lie inside the image. Defined by reference.average_pool2d."""
    rows = plane_count(step.channels, LANES) * step.batch * step.out_height
    first, last = share(rows, 1, part, parts)
    for row in range(first, last):
        _average_row(step, arena, sums, row, place)


@compiled
def _average_row(step: Any, arena: Any, sums: Any, row: int, place: int) -> None:
    keep_apart()
    area = step.kernel_height * step.kernel_width
    offset = 128 if step.is_signed else 0
    image, i = row // step.out_height, row % step.out_height  # planes and images lie side by side
    for j in range(step.out_width):
        total = spread(0)
        for di in range(step.kernel_height):
            line = (image * step.height + i * step.stride + di) * step.width + j * step.stride
            for dj in range(step.kernel_width):
                total = plus(total, load_bytes(arena, step.x + (line + dj) * LANES))
        store_integers(sums, place, total)
        for lane in range(LANES):
            value = sums[place + lane] - area * offset
            mean = (value + area // 2) // area if value >= 0 else -((area // 2 - value) // area)
            arena[step.out + (row * step.out_width + j) * LANES + lane] = min(max(mean + offset, step.low), step.high)
