"""Depthwise convolution of maps of bytes: tiles of rows and columns, a plane of channels at a time."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.filter import Windows
from minimobile_kernels.host import LANES, REGISTERS
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.quantized.byte_filter import Filters, make_byte_filter
from minimobile_kernels.quantized.constants import GROUP, LONG_BYTES, SCALES_BYTES, VECTOR_BYTES, VISITS, WORD_BYTES
from minimobile_kernels.quantized.estimate import Bytes
from minimobile_kernels.quantized.integers import load_long, load_word, store_word
from minimobile_kernels.quantized.requantize import requantize
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.simd import keep_apart

FILTER_ROWS = 2 if REGISTERS == 32 else 1
WIDE, NARROW, TINY = 8, 4, 3  # outputs of a tile in a row
DEPTHWISE_SUM_BYTES = FILTER_ROWS * WIDE * VECTOR_BYTES  # for the sums of a tile

_tile = make_byte_filter(
    FILTER_ROWS,
    [
        *[(WIDE, stride, visits) for visits in (1, 2) for stride in (1, 2)],
        *[(NARROW, stride, visits) for visits in (1, VISITS) for stride in (1, 2)],
        (TINY, 1, VISITS),
    ],
)
_any_tile = make_byte_filter(1, [(NARROW, None, 1), (NARROW, None, VISITS), (1, None, VISITS)])


@compiled
def depthwise_conv2d(step: Any, arrays: Arrays, part: int, parts: int, sums: int) -> None:
    """Convolve each channel of a map of bytes with its own filter. Defined by reference.depthwise_conv2d.

    Where the filters lie, `step.STEP` says. This thread's sums begin at `sums`.
    """
    planes = ceil_div(step.channels, LANES)
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
            _filter_rows(step, arrays, plane, n, i, i + count, sums)
            row += count


@compiled
def _filter_rows(step: Any, arrays: Arrays, plane: int, n: int, first: int, last: int, sums: int) -> None:
    """Compute the output rows [first, last) of image n for one plane of channels.

    Where tiles do not fit the rows or columns, the last ones overlap those before and compute the same bits again.
    """
    keep_apart()
    stride, dilation, out_width = step.stride, step.dilation, step.out_width
    height, width, pad_top, pad_left = step.height, step.width, step.pad_top, step.pad_left
    image = step.x + plane * step.x_plane + n * height * width * LANES
    out = step.out + plane * step.out_plane + n * step.out_height * out_width * LANES
    scales, has_negative = step.scales + plane * SCALES_BYTES, int(step.low < step.out_zero)
    is_3x3 = step.kernel_height == 3 and step.kernel_width == 3
    if is_3x3:
        weight = step.filters + plane * (VISITS * 3 * LANES * GROUP)
        visits = load_long(arrays.constants, step.visits + plane * LONG_BYTES)
    else:
        weight = step.filters + plane * step.kernel_height * step.kernel_width * VECTOR_BYTES
        visits = 1
    overhang = (out_width - 1) * stride - pad_left + 3 - width
    is_plain = is_3x3 and dilation == 1 and stride <= 2 and pad_left <= 1 and overhang <= 1
    is_wide_enough = out_width >= NARROW or (out_width == TINY and stride == 1)
    is_tiled = is_plain and is_wide_enough and last - first >= FILTER_ROWS
    rows = FILTER_ROWS if is_tiled else 1
    filters = Filters(weight, step.line)
    i = first
    while i < last:
        i = min(i, last - rows)
        j = 0
        while j < out_width:
            pixels = 1
            if is_tiled:
                pixels = WIDE if out_width - j >= WIDE and visits <= 2 else min(NARROW, out_width)
            elif is_3x3 and out_width >= NARROW:
                pixels = NARROW
            j = min(j, out_width - pixels)
            passes = visits if visits == 1 or pixels == WIDE else VISITS
            start = out + (i * out_width + j) * LANES
            to = Bytes(start, out_width * LANES, scales, 0, step.low, step.high, has_negative)
            windows = Windows(image, height, width, i * stride - pad_top, j * stride - pad_left, stride, dilation)
            doubts = 1
            if is_tiled:
                doubts = _tile(arrays, pixels, windows, passes, filters, to, sums)
            elif is_3x3:
                doubts = _any_tile(arrays, pixels, windows, passes, filters, to, sums)
            else:
                _filter_pixel(step, arrays, windows, filters.weight, scales, sums)
            if doubts:
                requantize(step, arrays, sums, pixels, doubts, to)
            j += pixels
        i += rows


@compiled
def _filter_pixel(step: Any, arrays: Arrays, window: Windows, weight: int, bias: int, sums: int) -> None:
    """Sum one window of any size, from the bias on; what lies outside counts as the zero point."""
    arena, constants = arrays.arena, arrays.constants
    for lane in range(LANES):
        total = load_word(constants, bias + lane * WORD_BYTES)
        for tap in range(step.kernel_height * step.kernel_width):
            row = window.top + tap // step.kernel_width * step.dilation
            column = window.left + tap % step.kernel_width * step.dilation
            value = step.x_zero
            if 0 <= row < step.height and 0 <= column < step.width:
                value = arena[window.image + (row * step.width + column) * LANES + lane]
            total += value * load_word(constants, weight + tap * VECTOR_BYTES + lane * WORD_BYTES)
        store_word(arena, sums + lane * WORD_BYTES, total)
