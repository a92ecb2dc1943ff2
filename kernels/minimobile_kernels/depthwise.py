"""Depthwise convolution: every channel has its own filter, and a vector of channels is filtered at once.

To be read as a ladder: `reference.depthwise_conv2d` defines it; chapter 5 of the lesson writes it as loops over
numbers, and then over vectors, which is `_filter_pixel` here; `filter.py` emits a tile of such pixels, which share what
they load.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.filter import Rows, Windows, make_filter
from minimobile_kernels.host import LANES, REGISTERS
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.reference import BLOCK
from minimobile_kernels.simd import add, broadcast, clamp, fma, keep_apart, load, store
from minimobile_kernels.step import Arrays

LARGE, SMALL = 7, 4
ROWS = 2 if REGISTERS == 32 else 1

_tile = make_filter(ROWS, [(pixels, stride) for pixels in (LARGE, SMALL) for stride in (1, 2)])
_any_tile = make_filter(1, [(SMALL, None), (1, None)])


@compiled
def depthwise_conv2d(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Convolve each channel: out[n,i,j,c] = clamp(f[c] * sum over ky,kx of x[n,y,x,c] * w[ky,kx,c] + bias[c]).

    Defined by reference.depthwise_conv2d, then the clamp.

    Shapes: x, out: maps of (N, H, W, C) and (N, H_out, W_out, C); weights [C/LANES][K_h*K_w + 2][LANES],
    factor f and bias last.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1, equation 3.
    """
    rows = step.batch * step.out_height
    first, last = share(ceil_div(step.channels, LANES) * rows, 1, part, parts)
    while first < last:
        plane, n, i = first // rows, first % rows // step.out_height, first % step.out_height
        count = min(last - first, step.out_height - i)
        image = step.x + plane * step.x_plane + n * step.height * step.width * LANES
        filter_rows(step, arrays, image, plane, out_rows(step, plane, n), i, i + count)
        first += count


@compiled
def out_rows(step: Any, plane: int, n: int) -> Rows:
    """Return where the rows of image n lie in a plane of the result."""
    row = step.out_width * LANES
    return Rows(step.out + plane * step.out_plane + n * step.out_height * row, row)


@compiled
def filter_rows(step: Any, arrays: Arrays, image: int, plane: int, out: Rows, first: int, last: int) -> None:
    """Compute the output rows [first, last) of an image for one plane of channels, whose input begins at `image`.

    A window of 3x3 taps goes to a register tile (`filter.py`). Where tiles do not fit the rows or columns, the last
    ones overlap those before and compute the same bits again.
    """
    keep_apart()
    stride, out_width = step.stride, step.out_width
    weight = step.weight + plane * (step.kernel_height * step.kernel_width + 2) * LANES
    if step.kernel_height != 3 or step.kernel_width != 3 or not step.is_finite:
        for i in range(first, last):
            for j in range(out_width):
                _filter_pixel(step, arrays, image, weight, i, j, out.start + i * out.distance + j * LANES)
        return
    height, width, dilation, pad_top, pad_left = step.height, step.width, step.dilation, step.pad_top, step.pad_left
    low, high = step.low, step.high
    overhang = (out_width - 1) * stride - pad_left + 3 - width
    is_plain = dilation == 1 and stride <= 2 and pad_left <= 1 and overhang <= 1
    is_tiled = is_plain and out_width >= SMALL and last - first >= ROWS
    rows = ROWS if is_tiled else 1
    i = first
    while i < last:
        i = min(i, last - rows)
        j = 0
        while j < out_width:
            pixels = SMALL if out_width >= SMALL else 1
            if is_tiled and out_width - j >= LARGE:
                pixels = LARGE
            j = min(j, out_width - pixels)
            place = Rows(out.start + i * out.distance + j * LANES, out.distance)
            windows = Windows(image, height, width, i * stride - pad_top, j * stride - pad_left, stride, dilation)
            if is_tiled:
                _tile(arrays, pixels, windows, weight, place, low, high)
            else:
                _any_tile(arrays, pixels, windows, weight, place, low, high)
            j += pixels
        i += rows


@compiled
def _filter_pixel(step: Any, arrays: Arrays, image: int, weight: int, i: int, j: int, out: int) -> None:
    """Compute one output pixel with a kernel of any size, skipping the taps that lie outside the image."""
    arena, weights = arrays.arena, arrays.weights
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
            pixel = load(arena, image + (row * step.width + column) * LANES)
            block = fma(pixel, load(weights, weight + tap * LANES), block)
    if blocks > 0:
        block = add(total, block)
    last = weight + step.kernel_height * step.kernel_width * LANES
    result = fma(block, load(weights, last), load(weights, last + LANES))
    store(arena, out, clamp(result, step.low, step.high))
