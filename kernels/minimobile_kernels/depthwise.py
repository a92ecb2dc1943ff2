"""Depthwise convolution: every channel has its own filter, and a vector of channels is filtered at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.filter import make_filter
from minimobile_kernels.reference import BLOCK
from minimobile_kernels.simd import LANES, add, broadcast, clamp, fma, keep_apart, load, store
from minimobile_kernels.step import plane_count, share

LARGE, SMALL = 7, 4

_large_1 = make_filter(LARGE, 1, has_border=False)
_large_2 = make_filter(LARGE, 2, has_border=False)
_border_large_1 = make_filter(LARGE, 1, has_border=True)
_border_large_2 = make_filter(LARGE, 2, has_border=True)
_border_small_1 = make_filter(SMALL, 1, has_border=True)
_border_small_2 = make_filter(SMALL, 2, has_border=True)
_any_large = make_filter(LARGE, None, has_border=True)
_any_single = make_filter(1, None, has_border=True)


@compiled
def depthwise_conv2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Convolve each channel: out[n,i,j,c] = clamp(bias[c] + sum over ky,kx of x[n,y,x,c] * w[ky,kx,c]).

    Defined by reference.depthwise_conv2d, then the clamp.

    Shapes: x, out: maps of (N, H, W, C) and (N, H_out, W_out, C); weights [C/LANES][K_h*K_w + 1][LANES], bias last.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1, equation 3.
    """
    rows = step.batch * step.out_height
    first, last = share(plane_count(step.channels, LANES) * rows, 1, thread, threads)
    image = step.height * step.width * LANES
    for item in range(first, last):
        plane, n, i = item // rows, item % rows // step.out_height, item % step.out_height
        filter_row(step, x, step.x + plane * step.x_plane + n * image, weights, arena, plane, n, i)


@compiled
def filter_row(step: Any, x: Any, image: int, weights: Any, arena: Any, plane: int, n: int, i: int) -> None:
    """Compute output row i of image n for one plane of channels, whose input rows begin at `image`."""
    keep_apart()
    top = i * step.stride - step.pad_top
    # The taps [first_ky, last_ky) of the window lie inside the image.
    first_ky = max(0, (-top + step.dilation - 1) // step.dilation)
    last_ky = max(first_ky, min(step.kernel_height, (step.height - top + step.dilation - 1) // step.dilation))
    size = step.kernel_height * step.kernel_width
    weight = step.weight + plane * (size + 1) * LANES
    out = step.out + plane * step.out_plane + (n * step.out_height + i) * step.out_width * LANES
    if step.kernel_height == 3 and step.kernel_width == 3 and step.is_finite:
        _filter_3x3(step, x, image, weights, arena, weight, out, top, first_ky, last_ky)
    else:
        for j in range(step.out_width):
            _filter_pixel(step, x, image, weights, arena, weight, out, top, first_ky, last_ky, j)


@compiled
def _filter_3x3(
    step: Any,
    x: Any,
    image: int,
    weights: Any,
    arena: Any,
    weight: int,
    out: int,
    top: int,
    first_ky: int,
    last_ky: int,
) -> None:
    x_row = step.width * LANES
    row = image + (top + first_ky * step.dilation) * x_row
    down = step.dilation * x_row
    rows = last_ky - first_ky
    bias = weight + 9 * LANES
    weight += first_ky * 3 * LANES
    stride, dilation, width, out_width = step.stride, step.dilation, step.width, step.out_width
    low, high = step.low, step.high
    is_dense = dilation == 1 and stride <= 2
    j = 0
    while j < out_width:
        left = out_width - j
        if left < LARGE and is_dense and left < SMALL <= out_width:
            j = out_width - SMALL  # overlap: the same bits again
        elif left < LARGE <= out_width and not is_dense:
            j = out_width - LARGE
        column = j * stride - step.pad_left
        place = out + j * LANES
        is_inside = column >= 0 and column + (LARGE - 1) * stride + 3 <= width
        if left >= LARGE and is_dense:
            if stride == 1 and is_inside:
                _large_1(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                         arena, place, low, high)  # fmt: skip
            elif stride == 1:
                _border_large_1(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                                arena, place, low, high)  # fmt: skip
            elif is_inside:
                _large_2(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                         arena, place, low, high)  # fmt: skip
            else:
                _border_large_2(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                                arena, place, low, high)  # fmt: skip
            j += LARGE
        elif is_dense and out_width >= SMALL:
            if stride == 1:
                _border_small_1(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                                arena, place, low, high)  # fmt: skip
            else:
                _border_small_2(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                                arena, place, low, high)  # fmt: skip
            j += SMALL
        elif out_width >= LARGE:
            _any_large(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                       arena, place, low, high)  # fmt: skip
            j += LARGE
        else:
            _any_single(x, row, column, width, down, rows, stride, dilation, weights, weight, bias,
                        arena, place, low, high)  # fmt: skip
            j += 1


@compiled
def _filter_pixel(
    step: Any, x: Any, image: int, weights: Any, arena: Any, weight: int, out: int, top: int,
    first_ky: int, last_ky: int, j: int,
) -> None:  # fmt: skip
    """Compute one output pixel with a kernel of any size, skipping the taps that lie outside the image."""
    left = j * step.stride - step.pad_left
    first_kx = max(0, (-left + step.dilation - 1) // step.dilation)
    last_kx = min(step.kernel_width, (step.width - left + step.dilation - 1) // step.dilation)
    zero = broadcast(np.float32(0))
    total = zero
    block = zero
    blocks = 0
    for ky in range(first_ky, last_ky):
        row = image + (top + ky * step.dilation) * step.width * LANES
        for kx in range(first_kx, last_kx):
            tap = ky * step.kernel_width + kx
            while tap // BLOCK > blocks:
                total = add(total, block) if blocks > 0 else block
                block = zero
                blocks += 1
            block = fma(load(x, row + (left + kx * step.dilation) * LANES), load(weights, weight + tap * LANES), block)
    if blocks > 0:
        block = add(total, block)
    bias = load(weights, weight + step.kernel_height * step.kernel_width * LANES)
    store(arena, out + j * LANES, clamp(add(block, bias), step.low, step.high))
