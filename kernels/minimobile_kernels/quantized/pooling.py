"""Pooling of maps of bytes."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.quantized.constants import SCALES_BYTES
from minimobile_kernels.quantized.estimate import Bytes
from minimobile_kernels.quantized.integers import load_bytes, load_integers, store_bytes, store_integers
from minimobile_kernels.quantized.requantize import requantize
from minimobile_kernels.quantized.scaling import divide_rounded
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.simd import add, broadcast, clamp, keep_apart


@compiled
def average_pool2d(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Average windows that lie inside the image. Defined by reference.average_pool2d."""
    arena = arrays.arena
    area, lowest = step.kernel_height * step.kernel_width, 128 if step.is_signed else 0
    rows = ceil_div(step.channels, LANES) * step.batch * step.out_height
    first, last = share(rows, 1, part, parts)
    for row in range(first, last):
        image, i = row // step.out_height, row % step.out_height  # planes and images lie side by side
        for j in range(step.out_width):
            start = (image * step.height + i * step.stride) * step.width + j * step.stride
            total = _total(arena, step.x + start * LANES, step.kernel_height, step.kernel_width, step.width)
            mean = add(divide_rounded(add(total, broadcast(-area * lowest)), area), broadcast(lowest))
            target = step.out + (row * step.out_width + j) * LANES
            store_bytes(arena, target, clamp(mean, step.low, step.high))


@compiled
def mean(step: Any, arrays: Arrays, part: int, parts: int, sums: int) -> None:
    """Average whole images, at another scale; this thread's sums begin at `sums`. Defined by reference_maps.mean."""
    planes = ceil_div(step.channels, LANES)
    first, last = share(planes * step.batch, 1, part, parts)
    for item in range(first, last):
        plane, n = item // step.batch, item % step.batch
        start = step.x + plane * step.x_plane + n * step.height * step.width * LANES
        total = _total(arrays.arena, start, step.height, step.width, step.width)
        scales = step.scales + plane * SCALES_BYTES
        bias = load_integers(arrays.constants, scales)
        store_integers(arrays.arena, sums, add(total, bias))
        target = step.out + plane * step.out_plane + n * LANES
        requantize(step, arrays, sums, 1, 1, Bytes(target, 0, scales, 0, step.low, step.high, 1))


@compiled
def _total(arena: Any, start: int, height: int, width: int, row: int) -> Any:
    """Sum a window of `height` x `width` pixels in rows of `row`."""
    keep_apart()
    total = broadcast(0)
    for i in range(height):
        for j in range(width):
            total = add(total, load_bytes(arena, start + (i * row + j) * LANES))
    return total
