"""From sums of int32 to bytes at the output's scale."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.integers import (
    limit,
    load_integers,
    plus,
    scale_as_float,
    scale_once_rounded,
    scale_twice_rounded,
    spread,
    store_bytes,
)
from minimobile_kernels.quantized_step import ROUNDINGS
from minimobile_kernels.simd import LANES, keep_apart

SCALES = ("bias", "multiplier", "left", "right", "scale")  # for every channel; the last holds the bits of a float32
DOUBLE, SINGLE = ROUNDINGS.index("double"), ROUNDINGS.index("single")


@compiled
def requantize(
    step: Any, sums: Any, start: int, rows: int, row_size: int, pixels: int, pixel_size: int, plane: int,
    scales: Any, arena: Any, out: int, out_row: int,
) -> None:  # fmt: skip
    """Bring the sums of `rows` x `pixels` pixels and one plane of channels to bytes, and write them.

    Sums lie at start + row*row_size + pixel*pixel_size, bytes go to out + row*out_row + pixel*LANES.
    Defined by reference.requantize, with the bias before it and the zero point and the clamp after it.
    """
    keep_apart()
    table = step.scales + plane * len(SCALES) * LANES
    bias = load_integers(scales, table)
    multiplier = load_integers(scales, table + LANES)
    left = load_integers(scales, table + 2 * LANES)
    right = load_integers(scales, table + 3 * LANES)
    scale = load_integers(scales, table + 4 * LANES)
    zero, low, high = spread(step.out_zero), spread(step.low), spread(step.high)
    rounding = step.rounding
    for row in range(rows):
        source, target = start + row * row_size, out + row * out_row
        if rounding == DOUBLE:
            for pixel in range(pixels):
                total = plus(load_integers(sums, source + pixel * pixel_size), bias)
                result = plus(scale_twice_rounded(total, multiplier, left, right), zero)
                store_bytes(arena, target + pixel * LANES, limit(result, low, high))
        elif rounding == SINGLE:
            for pixel in range(pixels):
                total = plus(load_integers(sums, source + pixel * pixel_size), bias)
                result = plus(scale_once_rounded(total, multiplier, left, right), zero)
                store_bytes(arena, target + pixel * LANES, limit(result, low, high))
        else:
            for pixel in range(pixels):
                total = plus(load_integers(sums, source + pixel * pixel_size), bias)
                result = plus(scale_as_float(total, scale), zero)
                store_bytes(arena, target + pixel * LANES, limit(result, low, high))
