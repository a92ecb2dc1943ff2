"""Depthwise convolution of maps of bytes: tiles of rows and columns, a plane of channels at a time."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.quantized.byte_filter import VISITS, make_byte_filter
from minimobile_kernels.quantized.integers import GROUP
from minimobile_kernels.quantized.requantize import requantize
from minimobile_kernels.simd import LANES, REGISTERS, keep_apart
from minimobile_kernels.step import plane_count, share

FILTER_ROWS = 2 if REGISTERS == 32 else 1
WIDE, NARROW, TINY = 8, 4, 3  # outputs of a tile in a row
DEPTHWISE_SUMS = FILTER_ROWS * WIDE * LANES  # int32 that a tile needs

_wide_1 = make_byte_filter(FILTER_ROWS, WIDE, 1, 1)
_wide_2 = make_byte_filter(FILTER_ROWS, WIDE, 2, 1)
_narrow_1 = make_byte_filter(FILTER_ROWS, NARROW, 1, 1)
_narrow_2 = make_byte_filter(FILTER_ROWS, NARROW, 2, 1)
_tiny = make_byte_filter(FILTER_ROWS, TINY, 1, VISITS)
_any_narrow = make_byte_filter(1, NARROW, None, 1)
_wide_twice_1 = make_byte_filter(FILTER_ROWS, WIDE, 1, 2)
_wide_twice_2 = make_byte_filter(FILTER_ROWS, WIDE, 2, 2)
_narrow_often_1 = make_byte_filter(FILTER_ROWS, NARROW, 1, VISITS)
_narrow_often_2 = make_byte_filter(FILTER_ROWS, NARROW, 2, VISITS)
_any_narrow_often = make_byte_filter(1, NARROW, None, VISITS)
_any_often = make_byte_filter(1, 1, None, VISITS)


@inlined
def depthwise_conv2d(
    step: Any, weights: Any, lines: Any, scales: Any, taps: Any, arena: Any, sums: Any, part: int, parts: int,
    place: int,
) -> None:  # fmt: skip
    """Convolve each channel of a map of bytes with its own filter. Defined by reference.depthwise_conv2d.

    Shapes: 3x3 filters in `weights`, others in `scales`, as `step.STEP` says; lines: bytes, zero points.
    """
    planes = plane_count(step.channels, LANES)
    rows = step.batch * step.out_height
    first_plane, last_plane, first_row, last_row = 0, planes, 0, rows
    if rows >= 2 * FILTER_ROWS * parts:  # of the map that the same thread made, where there are rows enough
        first_row, last_row = share(rows, FILTER_ROWS, part, parts)
    else:
        first_plane, last_plane = share(planes, 1, part, parts)
    for plane in range(first_plane, last_plane):
        row = first_row
        while row < last_row:
            n, i = row // step.out_height, row % step.out_height
            count = min(last_row - row, step.out_height - i)
            _filter_rows(step, weights, lines, scales, taps, arena, plane, n, i, i + count, sums, place)
            row += count


@compiled
def _filter_rows(
    step: Any, weights: Any, lines: Any, scales: Any, taps: Any, arena: Any, plane: int, n: int, first: int, last: int,
    sums: Any, place: int,
) -> None:  # fmt: skip
    """Compute the output rows [first, last) of image n for one plane of channels.

    Where tiles do not fit the rows or columns, the last ones overlap those before and compute the same bytes again.
    """
    keep_apart()
    stride, dilation, out_width, x_row = step.stride, step.dilation, step.out_width, step.width * LANES
    height, width, line = step.height, step.width, step.line
    image = step.x + plane * step.x_plane + n * height * x_row
    out = step.out + plane * step.out_plane + n * step.out_height * out_width * LANES
    is_3x3 = step.kernel_height == 3 and step.kernel_width == 3
    if is_3x3:
        weight = step.filters + plane * (VISITS * 3 * LANES * GROUP)
        visits = taps[step.visits + plane]
    else:
        weight = step.filters + plane * step.kernel_height * step.kernel_width * LANES
        visits = 1
    overhang = (out_width - 1) * stride - step.pad_left + 3 - width
    is_plain = is_3x3 and dilation == 1 and stride <= 2 and step.pad_left <= 1 and overhang <= 1
    is_wide_enough = out_width >= NARROW or (out_width == TINY and stride == 1)
    is_tiled = is_plain and is_wide_enough and last - first >= FILTER_ROWS
    rows = FILTER_ROWS if is_tiled else 1
    i = first
    while i < last:
        i = min(i, last - rows)
        top = i * stride - step.pad_top
        j = 0
        while j < out_width:
            pixels = 1
            if is_tiled:
                pixels = WIDE if out_width - j >= WIDE and visits <= 2 else min(NARROW, out_width)
            elif is_3x3 and out_width >= NARROW:
                pixels = NARROW
            j = min(j, out_width - pixels)
            column = j * stride - step.pad_left
            if not is_3x3:
                _filter_pixel(step, arena, image, scales, weight, top, column, sums, place)
            elif not is_tiled and pixels == 1:
                _any_often(arena, image, x_row, top, height, column, width, stride, dilation, weights, weight, lines,
                           line, sums, place)  # fmt: skip
            elif not is_tiled and visits == 1:
                _any_narrow(arena, image, x_row, top, height, column, width, stride, dilation, weights, weight, lines,
                            line, sums, place)  # fmt: skip
            elif not is_tiled:
                _any_narrow_often(arena, image, x_row, top, height, column, width, stride, dilation, weights, weight,
                                  lines, line, sums, place)  # fmt: skip
            elif pixels == WIDE and visits == 1 and stride == 1:
                _wide_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line, sums,
                        place)  # fmt: skip
            elif pixels == WIDE and visits == 1:
                _wide_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line, sums,
                        place)  # fmt: skip
            elif pixels == WIDE and stride == 1:
                _wide_twice_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line,
                              sums, place)  # fmt: skip
            elif pixels == WIDE:
                _wide_twice_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line,
                              sums, place)  # fmt: skip
            elif pixels == NARROW and visits == 1 and stride == 1:
                _narrow_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line, sums,
                          place)  # fmt: skip
            elif pixels == NARROW and visits == 1:
                _narrow_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line, sums,
                          place)  # fmt: skip
            elif pixels == NARROW and stride == 1:
                _narrow_often_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line,
                                sums, place)  # fmt: skip
            elif pixels == NARROW:
                _narrow_often_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line,
                                sums, place)  # fmt: skip
            elif pixels == TINY:
                _tiny(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line, sums,
                      place)  # fmt: skip
            target = out + (i * out_width + j) * LANES
            requantize(step, sums, place, rows, pixels * LANES, pixels, LANES, plane, 1, scales, arena, target,
                       out_width * LANES)  # fmt: skip
            j += pixels
        i += rows


@inlined
def _filter_pixel(
    step: Any, arena: Any, image: int, scales: Any, weight: int, top: int, left: int, sums: Any, place: int
) -> None:
    """Sum one window of any size; what lies outside counts as the zero point."""
    for lane in range(LANES):
        total = 0
        for tap in range(step.kernel_height * step.kernel_width):
            row = top + tap // step.kernel_width * step.dilation
            column = left + tap % step.kernel_width * step.dilation
            value = step.x_zero
            if 0 <= row < step.height and 0 <= column < step.width:
                value = arena[image + (row * step.width + column) * LANES + lane]
            total += value * scales[weight + tap * LANES + lane]
        sums[place + lane] = total
