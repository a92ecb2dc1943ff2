"""From sums of int32 to bytes at the output's scale."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.filter import Rows
from minimobile_kernels.quantized.integers import VECTOR_BYTES, load_integers, store_bytes, store_four
from minimobile_kernels.quantized.scaling import (
    scale_above_zero,
    scale_as_float,
    scale_once_rounded,
    scale_twice_rounded,
)
from minimobile_kernels.quantized.step import BYTES_OF, Arrays
from minimobile_kernels.simd import LANES, add, broadcast, clamp, keep_apart

SCALES = ("bias", "multiplier", "left", "right", "scale")  # for every channel; the last holds the bits of a float32
LITERT, SINGLE_ROUNDING = BYTES_OF.index("litert"), BYTES_OF.index("litert-single-rounding")


@inlined
def load_scales(constants: Any, table: int) -> Any:
    """Return the vectors of one plane's `SCALES`."""
    return (
        load_integers(constants, table),
        load_integers(constants, table + VECTOR_BYTES),
        load_integers(constants, table + 2 * VECTOR_BYTES),
        load_integers(constants, table + 3 * VECTOR_BYTES),
        load_integers(constants, table + 4 * VECTOR_BYTES),
    )


@compiled
def requantize(
    step: Any, arrays: Arrays, sums: int, rows: int, pixels: int, planes: int, plane: int, out: Rows
) -> None:
    """Bring the sums of `rows` x `pixels` pixels and of `planes` planes of channels from `plane` on to bytes.

    Sums of int32 lie from `sums` on, [rows][pixels][planes][LANES]; the bytes of the first plane go to `out`, those of
    the next `step.out_plane` further. Defined by reference.requantize, with the bias before it and the zero point and
    the clamp after it.
    """
    keep_apart()
    bytes_of, is_simple = step.bytes_of, step.is_simple
    out_plane, out_zero, low, high = step.out_plane, step.out_zero, step.low, step.high
    constants, arena = arrays.constants, arrays.arena
    size = planes * VECTOR_BYTES
    for index in range(planes):
        table = step.scales + (plane + index) * len(SCALES) * VECTOR_BYTES
        bias, multiplier, left, right, scale = load_scales(constants, table)
        for row in range(rows):
            source = sums + index * VECTOR_BYTES + row * pixels * size
            target = out.start + index * out_plane + row * out.distance
            pixel = 0
            while pixel < pixels:
                if pixels < 4:
                    total = add(load_integers(arena, source + pixel * size), bias)
                    if bytes_of == LITERT:
                        result = scale_twice_rounded(total, multiplier, left, right)
                    elif bytes_of == SINGLE_ROUNDING:
                        result = scale_once_rounded(total, multiplier, left, right)
                    else:
                        result = scale_as_float(total, scale)
                    result = clamp(add(result, broadcast(out_zero)), low, high)
                    store_bytes(arena, target + pixel * LANES, result)
                    pixel += 1
                    continue
                pixel = min(pixel, pixels - 4)  # the last four may overlap those before, and give the same bytes again
                place = source + pixel * size
                first = add(load_integers(arena, place), bias)
                second = add(load_integers(arena, place + size), bias)
                third = add(load_integers(arena, place + 2 * size), bias)
                fourth = add(load_integers(arena, place + 3 * size), bias)
                # The rule is chosen once for four vectors: chosen for each, and written once, it cost V1 0.25 0.8 %.
                if is_simple:
                    first = scale_above_zero(first, multiplier, right)
                    second = scale_above_zero(second, multiplier, right)
                    third = scale_above_zero(third, multiplier, right)
                    fourth = scale_above_zero(fourth, multiplier, right)
                elif bytes_of == LITERT:
                    first = scale_twice_rounded(first, multiplier, left, right)
                    second = scale_twice_rounded(second, multiplier, left, right)
                    third = scale_twice_rounded(third, multiplier, left, right)
                    fourth = scale_twice_rounded(fourth, multiplier, left, right)
                elif bytes_of == SINGLE_ROUNDING:
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
