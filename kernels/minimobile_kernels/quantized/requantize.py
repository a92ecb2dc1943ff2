"""From sums of int32 to bytes at the output's scale."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.quantized.integers import (
    limit,
    load_integers,
    plus,
    spread,
    store_bytes,
    store_four,
)
from minimobile_kernels.quantized.scaling import (
    scale_above_zero,
    scale_as_float,
    scale_once_rounded,
    scale_twice_rounded,
)
from minimobile_kernels.quantized.step import ROUNDINGS
from minimobile_kernels.simd import LANES, keep_apart

SCALES = ("bias", "multiplier", "left", "right", "scale")  # for every channel; the last holds the bits of a float32
DOUBLE, SINGLE = ROUNDINGS.index("double"), ROUNDINGS.index("single")


@compiled
def requantize(
    step: Any, sums: Any, start: int, rows: int, row_size: int, pixels: int, pixel_size: int, plane: int, planes: int,
    scales: Any, arena: Any, out: int, out_row: int,
) -> None:  # fmt: skip
    """Bring the sums of `rows` x `pixels` pixels and of `planes` planes of channels from `plane` on to bytes.

    Sums lie at start + row*row_size + pixel*pixel_size, those of the next plane LANES further; bytes go to
    out + row*out_row + pixel*LANES, those of the next plane `step.out_plane` further.
    Defined by reference.requantize, with the bias before it and the zero point and the clamp after it.
    """
    keep_apart()
    rounding, is_simple = step.rounding, step.is_simple
    out_plane, out_zero, low, high = step.out_plane, step.out_zero, step.low, step.high
    for index in range(planes):
        table = step.scales + (plane + index) * len(SCALES) * LANES
        bias = load_integers(scales, table)
        multiplier = load_integers(scales, table + LANES)
        left = load_integers(scales, table + 2 * LANES)
        right = load_integers(scales, table + 3 * LANES)
        scale = load_integers(scales, table + 4 * LANES)
        for row in range(rows):
            source, target = start + index * LANES + row * row_size, out + index * out_plane + row * out_row
            pixel = 0
            while pixel < pixels:
                if pixels < 4:
                    total = plus(load_integers(sums, source + pixel * pixel_size), bias)
                    if rounding == DOUBLE:
                        result = scale_twice_rounded(total, multiplier, left, right)
                    elif rounding == SINGLE:
                        result = scale_once_rounded(total, multiplier, left, right)
                    else:
                        result = scale_as_float(total, scale)
                    result = limit(plus(result, spread(out_zero)), spread(low), spread(high))
                    store_bytes(arena, target + pixel * LANES, result)
                    pixel += 1
                    continue
                pixel = min(pixel, pixels - 4)  # the last four may overlap those before, and give the same bytes again
                place = source + pixel * pixel_size
                first = plus(load_integers(sums, place), bias)
                second = plus(load_integers(sums, place + pixel_size), bias)
                third = plus(load_integers(sums, place + 2 * pixel_size), bias)
                fourth = plus(load_integers(sums, place + 3 * pixel_size), bias)
                if is_simple:
                    first = scale_above_zero(first, multiplier, right)
                    second = scale_above_zero(second, multiplier, right)
                    third = scale_above_zero(third, multiplier, right)
                    fourth = scale_above_zero(fourth, multiplier, right)
                elif rounding == DOUBLE:
                    first = scale_twice_rounded(first, multiplier, left, right)
                    second = scale_twice_rounded(second, multiplier, left, right)
                    third = scale_twice_rounded(third, multiplier, left, right)
                    fourth = scale_twice_rounded(fourth, multiplier, left, right)
                elif rounding == SINGLE:
                    first = scale_once_rounded(first, multiplier, left, right)
                    second = scale_once_rounded(second, multiplier, left, right)
                    third = scale_once_rounded(third, multiplier, left, right)
                    fourth = scale_once_rounded(fourth, multiplier, left, right)
                else:
                    first = scale_as_float(first, scale)
                    second = scale_as_float(second, scale)
                    third = scale_as_float(third, scale)
                    fourth = scale_as_float(fourth, scale)
                store_four(arena, target + pixel * LANES, first, second, third, fourth, out_zero, low, high)
                pixel += 4
