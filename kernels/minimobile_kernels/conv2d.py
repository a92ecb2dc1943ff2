"""Dense convolution: MobileNet's first layer. Inside the image a register tile, at its border one pixel at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.geometry import valid_range as _valid_range
from minimobile_kernels.simd import LANES, add, broadcast, clamp, fma, keep_apart, load, store
from minimobile_kernels.step import plane_count, share
from minimobile_kernels.tile import PANEL, PANEL_VECTORS, TILE_PIXELS, make_tile

SMALL = TILE_PIXELS[1]  # fourteen pixels at once were no faster: their addresses do not fit the registers

valid_range = compiled(_valid_range)
_small = make_tile(SMALL, PANEL_VECTORS, True)
_small_half = make_tile(SMALL, 1, True)


@inlined
def conv2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, part: int, parts: int) -> None:
    """Convolve: out[n,i,j,o] = clamp(bias[o] + sum over ky,kx,ci of x[n,y,x,ci] * w[o,ky,kx,ci] + y[n,i,j,o]).

    Defined by reference.conv2d, then reference.add where there is a residual y, then the clamp.

    Shapes: x (N, H, W, C_in) with any strides, so that an (N, C, H, W) image is read as it is; out a map of
    (N, H_out, W_out, C_out); weights in panels [C_out/PANEL][K_h*K_w*C_in + 1][PANEL], bias last; taps
    [K_h*K_w*C_in], the offset of every term from the window's first pixel.
    """
    first, last = share(step.batch * step.out_height, 1, part, parts)
    while first < last:
        n, i = first // step.out_height, first % step.out_height
        count = min(last - first, step.out_height - i)
        for panel in range(plane_count(step.out_channels, PANEL)):
            out = step.out + panel * PANEL_VECTORS * step.out_plane + first * step.out_width * LANES
            convolve_rows(step, x, weights, arena, taps, n, i, i + count, panel, out, step.out_plane)
        first += count


@compiled
def convolve_rows(
    step: Any, x: Any, weights: Any, arena: Any, taps: Any, n: int, first: int, last: int,
    panel: int, out_start: int, out_plane: int,
) -> None:  # fmt: skip
    """Compute the output rows [first, last) of image n for one panel of channels; the first one begins at out_start."""
    keep_apart()
    first_inside, last_inside = _inside(step.width, step.kernel_width, step.pad_left, step.out_width, step)
    first_full, last_full = _inside(step.height, step.kernel_height, step.pad_top, step.out_height, step)
    terms = step.kernel_height * step.kernel_width * step.channels
    term_offsets = taps[step.taps : step.taps + terms]
    vectors = min(PANEL_VECTORS, plane_count(step.out_channels, LANES) - panel * PANEL_VECTORS)
    weight = step.weight + panel * PANEL * (terms + 1)
    for i in range(first, last):
        out = out_start + (i - first) * step.out_width * LANES
        is_full = first_full <= i < last_full and last_inside - first_inside >= SMALL
        for j in range(step.out_width):
            if not (is_full and first_inside <= j < last_inside):
                _border_pixel(step, x, weights, weight, vectors, arena, term_offsets, n, i, j, out, out_plane)
        if is_full:
            row = step.x + n * step.x_image + (i * step.stride - step.pad_top) * step.x_row
            _tile_row(step, x, row, weights, weight, vectors, arena, term_offsets, out, out_plane,
                      first_inside, last_inside)  # fmt: skip


@inlined
def _inside(size: int, kernel_size: int, before: int, out_size: int, step: Any) -> tuple[int, int]:
    """Return the outputs whose whole window lies inside the image."""
    first, _ = valid_range(0, size, step.stride, before, out_size)
    _, last = valid_range((kernel_size - 1) * step.dilation, size, step.stride, before, out_size)
    return first, last


@inlined
def _tile_row(
    step: Any, x: Any, row: int, weights: Any, weight: int, vectors: int, arena: Any, term_offsets: Any,
    out_start: int, out_plane: int, first: int, last: int,
) -> None:  # fmt: skip
    """Compute the columns [first, last) of one output row, which begins at `out_start`."""
    x_step = step.stride * step.x_pixel
    terms = term_offsets.shape[0]
    j = first
    while j < last:
        j = min(j, last - SMALL)
        source = row + j * x_step - step.pad_left * step.x_pixel
        out = out_start + j * LANES
        y = out + step.y - step.out if step.y >= 0 else -1
        term = 0
        while term < terms:
            if vectors == PANEL_VECTORS:
                _small(x, source, x_step, term_offsets, weights, weight, terms, term, step.block, arena, y,
                       arena, out, out_plane, step.low, step.high)  # fmt: skip
            else:
                _small_half(x, source, x_step, term_offsets, weights, weight, terms, term, step.block, arena, y,
                            arena, out, out_plane, step.low, step.high)  # fmt: skip
            term += step.block
        j += SMALL


@compiled
def _border_pixel(
    step: Any, x: Any, weights: Any, weight: int, vectors: int, arena: Any, term_offsets: Any,
    n: int, i: int, j: int, out_start: int, out_plane: int,
) -> None:  # fmt: skip
    """Compute one output pixel, skipping the taps that lie outside the image."""
    keep_apart()
    terms = term_offsets.shape[0]
    top, left = i * step.stride - step.pad_top, j * step.stride - step.pad_left
    source = step.x + n * step.x_image + top * step.x_row + left * step.x_pixel
    first_ky, last_ky = _taps_inside(top, step.kernel_height, step.dilation, step.height)
    first_kx, last_kx = _taps_inside(left, step.kernel_width, step.dilation, step.width)
    zero = broadcast(np.float32(0))
    for vector in range(vectors):
        lane = weight + vector * LANES
        total = zero
        block = zero
        blocks = 0
        for ky in range(first_ky, last_ky):
            for kx in range(first_kx, last_kx):
                first = (ky * step.kernel_width + kx) * step.channels
                for k in range(first, first + step.channels):
                    while k >= (blocks + 1) * step.block:
                        total = add(total, block) if blocks > 0 else block
                        block = zero
                        blocks += 1
                    value = broadcast(x[source + term_offsets[k]])
                    block = fma(value, load(weights, lane + k * vectors * LANES), block)
        while terms > (blocks + 1) * step.block:
            total = add(total, block) if blocks > 0 else block
            block = zero
            blocks += 1
        if blocks > 0:
            block = add(total, block)
        result = add(block, load(weights, lane + terms * vectors * LANES))
        out = out_start + vector * out_plane + j * LANES
        if step.y >= 0:
            result = add(result, load(arena, out + step.y - step.out))
        store(arena, out, clamp(result, step.low, step.high))


@inlined
def _taps_inside(start: int, count: int, dilation: int, size: int) -> tuple[int, int]:
    """Return the taps k of `count` for which start + k * dilation lies within 0..size."""
    first = 0 if start >= 0 else (-start + dilation - 1) // dilation
    last = min(count, (size - start + dilation - 1) // dilation)
    return first, last
