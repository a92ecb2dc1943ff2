"""Depthwise convolution: every channel has its own filter, and a vector of channels is filtered at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.filter import make_filter
from minimobile_kernels.reference import BLOCK
from minimobile_kernels.simd import LANES, REGISTERS, add, broadcast, clamp, fma, keep_apart, load, store
from minimobile_kernels.step import plane_count, share

LARGE, SMALL = 7, 4
ROWS = 2 if REGISTERS == 32 else 1

_large_1 = make_filter(ROWS, LARGE, 1)
_large_2 = make_filter(ROWS, LARGE, 2)
_small_1 = make_filter(ROWS, SMALL, 1)
_small_2 = make_filter(ROWS, SMALL, 2)
_any = make_filter(1, SMALL, None)
_any_single = make_filter(1, 1, None)


@inlined
def depthwise_conv2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, part: int, parts: int) -> None:
    """Convolve each channel: out[n,i,j,c] = clamp(bias[c] + sum over ky,kx of x[n,y,x,c] * w[ky,kx,c]).

    Defined by reference.depthwise_conv2d, then the clamp.

    Shapes: x, out: maps of (N, H, W, C) and (N, H_out, W_out, C); weights [C/LANES][K_h*K_w + 1][LANES], bias last.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1, equation 3.
    """
    rows = step.batch * step.out_height
    first, last = share(plane_count(step.channels, LANES) * rows, 1, part, parts)
    image = step.height * step.width * LANES
    while first < last:
        plane, n, i = first // rows, first % rows // step.out_height, first % step.out_height
        count = min(last - first, step.out_height - i)
        filter_rows(step, x, step.x + plane * step.x_plane + n * image, weights, arena, plane, n, i, i + count)
        first += count


@compiled
def filter_rows(
    step: Any, x: Any, image: int, weights: Any, arena: Any, plane: int, n: int, first: int, last: int
) -> None:
    """Compute the output rows [first, last) of image n for one plane of channels, whose input begins at `image`.

    Where tiles do not fit the rows or columns, the last ones overlap those before and compute the same bits again.
    """
    keep_apart()
    stride, out_width = step.stride, step.out_width
    weight = step.weight + plane * (step.kernel_height * step.kernel_width + 1) * LANES
    out = step.out + plane * step.out_plane + n * step.out_height * out_width * LANES
    if step.kernel_height != 3 or step.kernel_width != 3 or not step.is_finite:
        for i in range(first, last):
            for j in range(out_width):
                _filter_pixel(step, x, image, weights, arena, weight, out, i, j)
        return
    overhang = (out_width - 1) * stride - step.pad_left + 3 - step.width
    is_plain = step.dilation == 1 and stride <= 2 and step.pad_left <= 1 and overhang <= 1
    if not is_plain or out_width < SMALL or last - first < ROWS:
        _filter_any(step, x, image, weights, arena, weight, out, first, last)
        return
    x_row, height, width, low, high = step.width * LANES, step.height, step.width, step.low, step.high
    out_row = out_width * LANES
    i = first
    while i < last:
        i = min(i, last - ROWS)
        top = i * stride - step.pad_top
        j = 0
        while j < out_width:
            is_large = out_width - j >= LARGE
            if not is_large:
                j = min(j, out_width - SMALL)
            column = j * stride - step.pad_left
            place = out + i * out_row + j * LANES
            if is_large and stride == 1:
                _large_1(x, image, x_row, top, height, column, width, 1, 1, weights, weight,
                         arena, place, out_row, low, high)  # fmt: skip
            elif is_large:
                _large_2(x, image, x_row, top, height, column, width, 2, 1, weights, weight,
                         arena, place, out_row, low, high)  # fmt: skip
            elif stride == 1:
                _small_1(x, image, x_row, top, height, column, width, 1, 1, weights, weight,
                         arena, place, out_row, low, high)  # fmt: skip
            else:
                _small_2(x, image, x_row, top, height, column, width, 2, 1, weights, weight,
                         arena, place, out_row, low, high)  # fmt: skip
            j += LARGE if is_large else SMALL
        i += ROWS


@inlined
def _filter_any(
    step: Any, x: Any, image: int, weights: Any, arena: Any, weight: int, out: int, first: int, last: int
) -> None:
    """Filter 3x3 with any stride, dilation, padding and width."""
    stride, dilation, out_width = step.stride, step.dilation, step.out_width
    x_row, height, width, low, high = step.width * LANES, step.height, step.width, step.low, step.high
    out_row = out_width * LANES
    for i in range(first, last):
        top = i * stride - step.pad_top
        j = 0
        while j < out_width:
            if out_width >= SMALL:
                j = min(j, out_width - SMALL)
            column = j * stride - step.pad_left
            place = out + i * out_row + j * LANES
            if out_width >= SMALL:
                _any(x, image, x_row, top, height, column, width, stride, dilation, weights, weight,
                     arena, place, out_row, low, high)  # fmt: skip
                j += SMALL
            else:
                _any_single(x, image, x_row, top, height, column, width, stride, dilation, weights, weight,
                            arena, place, out_row, low, high)  # fmt: skip
                j += 1


@inlined
def _filter_pixel(
    step: Any, x: Any, image: int, weights: Any, arena: Any, weight: int, out: int, i: int, j: int
) -> None:
    """Compute one output pixel with a kernel of any size, skipping the taps that lie outside the image."""
    top, left = i * step.stride - step.pad_top, j * step.stride - step.pad_left
    zero = broadcast(np.float32(0))
    total = zero
    block = zero
    blocks = 0
    for tap in range(step.kernel_height * step.kernel_width):
        row = top + tap // step.kernel_width * step.dilation
        column = left + tap % step.kernel_width * step.dilation
        if tap // BLOCK > blocks:
            total = add(total, block) if blocks > 0 else block
            block = zero
            blocks += 1
        if 0 <= row < step.height and 0 <= column < step.width:
            pixel = load(x, image + (row * step.width + column) * LANES)
            block = fma(pixel, load(weights, weight + tap * LANES), block)
    if blocks > 0:
        block = add(total, block)
    bias = load(weights, weight + step.kernel_height * step.kernel_width * LANES)
    place = out + (i * step.out_width + j) * LANES
    store(arena, place, clamp(add(block, bias), step.low, step.high))
