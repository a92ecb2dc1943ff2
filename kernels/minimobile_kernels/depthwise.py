"""Depthwise convolution: every channel has its own filter, and a vector of channels is filtered at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.geometry import valid_range as _valid_range
from minimobile_kernels.reference import BLOCK
from minimobile_kernels.simd import LANES, add, broadcast, clamp, fma, load, store
from minimobile_kernels.step import share

valid_range = compiled(_valid_range)


@compiled
def depthwise_conv2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Convolve each channel: out[n,i,j,c] = clamp(bias[c] + sum over ky,kx of x[n,y,x,c] * w[ky,kx,c]).

    Defined by reference.depthwise_conv2d, then the clamp.

    Shapes: x (N, H, W, x_pixel), out (N, H_out, W_out, out_pixel); weights [C/LANES][K_h*K_w + 1][LANES], bias last.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1, equation 3.
    """
    blocks = step.out_pixel // LANES
    rows = step.batch * step.out_height
    groups = min(blocks, max(1, 8 * threads // rows)) if threads > 1 else 1  # few rows: cut the channels too
    first, last = share(rows * groups, 1, thread, threads)
    for item in range(first, last):
        row, group = item // groups, item % groups
        n, i = row // step.out_height, row % step.out_height
        for block in range(blocks * group // groups, blocks * (group + 1) // groups):
            _filter_row(step, x, weights, arena, n, i, block)


@compiled
def _filter_row(step: Any, x: Any, weights: Any, arena: Any, n: int, i: int, block: int) -> None:
    size = step.kernel_height * step.kernel_width
    weight = step.weight + block * (size + 1) * LANES
    bias = load(weights, weight + size * LANES)
    top = i * step.stride - step.pad_top
    # Taps [first_ky, last_ky) of the window lie inside the image, rounded up from the top and from the bottom.
    first_ky = max(0, (-top + step.dilation - 1) // step.dilation)
    last_ky = min(step.kernel_height, (step.height - top + step.dilation - 1) // step.dilation)
    source = step.x + n * step.x_image + block * LANES
    out = step.out + (n * step.out_height + i) * step.out_width * step.out_pixel + block * LANES
    first, last = 0, 0  # columns that the unrolled filter computes
    if step.kernel_width == 3 and step.kernel_height == 3 and first_ky == 0 and last_ky == 3:
        first, _ = valid_range(0, step.width, step.stride, step.pad_left, step.out_width)
        _, last = valid_range(2 * step.dilation, step.width, step.stride, step.pad_left, step.out_width)
        last = max(first, last)
        _filter_3x3(step, x, weights, arena, weight, bias, source + top * step.x_row, out, first, last)
    for j in range(step.out_width):
        if first <= j < last:
            continue
        left = j * step.stride - step.pad_left
        first_kx = max(0, (-left + step.dilation - 1) // step.dilation)
        last_kx = min(step.kernel_width, (step.width - left + step.dilation - 1) // step.dilation)
        total = broadcast(np.float32(0))
        sums = broadcast(np.float32(0))
        done_blocks = 0
        for ky in range(first_ky, last_ky):
            for kx in range(first_kx, last_kx):
                tap = ky * step.kernel_width + kx
                while tap // BLOCK > done_blocks:
                    total = add(total, sums) if done_blocks > 0 else sums
                    sums = broadcast(np.float32(0))
                    done_blocks += 1
                offset = (top + ky * step.dilation) * step.x_row + (left + kx * step.dilation) * step.x_pixel
                sums = fma(load(x, source + offset), load(weights, weight + tap * LANES), sums)
        if done_blocks > 0:
            sums = add(total, sums)
        store(arena, out + j * step.out_pixel, clamp(add(sums, bias), step.low, step.high))


@compiled
def _filter_3x3(
    step: Any, x: Any, weights: Any, arena: Any, weight: int, bias: Any, row: int, out: int, first: int, last: int
) -> None:
    """Compute the columns [first, last), whose windows lie inside the image, with the nine weights in registers."""
    w0 = load(weights, weight)
    w1 = load(weights, weight + LANES)
    w2 = load(weights, weight + 2 * LANES)
    w3 = load(weights, weight + 3 * LANES)
    w4 = load(weights, weight + 4 * LANES)
    w5 = load(weights, weight + 5 * LANES)
    w6 = load(weights, weight + 6 * LANES)
    w7 = load(weights, weight + 7 * LANES)
    w8 = load(weights, weight + 8 * LANES)
    zero = broadcast(np.float32(0))
    right = step.dilation * step.x_pixel
    down = step.dilation * step.x_row
    for j in range(first, last):
        upper = row + (j * step.stride - step.pad_left) * step.x_pixel
        middle = upper + down
        lower = middle + down
        sums = fma(load(x, upper), w0, zero)
        sums = fma(load(x, upper + right), w1, sums)
        sums = fma(load(x, upper + 2 * right), w2, sums)
        sums = fma(load(x, middle), w3, sums)
        sums = fma(load(x, middle + right), w4, sums)
        sums = fma(load(x, middle + 2 * right), w5, sums)
        sums = fma(load(x, lower), w6, sums)
        sums = fma(load(x, lower + right), w7, sums)
        sums = fma(load(x, lower + 2 * right), w8, sums)
        store(arena, out + j * step.out_pixel, clamp(add(sums, bias), step.low, step.high))
