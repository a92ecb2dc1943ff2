"""Dense convolution: MobileNet's first layer. Inside the image a register tile, at its border one pixel at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.geometry import valid_range as _valid_range
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import plane_count, share
from minimobile_kernels.simd import add, broadcast, clamp, fma, keep_apart, load, store
from minimobile_kernels.step import PANEL_VECTORS, Arrays, Map
from minimobile_kernels.tile import PANEL, TILE_PIXELS, TapWindows, Terms, finish_of, make_tile

SMALL = TILE_PIXELS[1]  # fourteen pixels at once were no faster: their addresses do not fit the registers

valid_range = compiled(_valid_range)
_tile = make_tile([(SMALL, PANEL_VECTORS), (SMALL, 1)])


@compiled
def conv2d(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Convolve: out[n,i,j,o] = clamp(f[o] * sum over ky,kx,ci of x[n,y,x,ci] * w[o,ky,kx,ci] + bias[o]).

    Defined by reference.conv2d, then the clamp.

    Shapes: x (N, H, W, C_in) with any strides, so that an (N, C, H, W) image is read as it is; out a map of
    (N, H_out, W_out, C_out); weights in panels [C_out/PANEL][K_h*K_w*C_in + 2][PANEL], factor f and bias last;
    taps [K_h*K_w*C_in], the offset of every term from the window's first pixel.
    """
    first, last = share(step.batch * step.out_height, 1, part, parts)
    while first < last:
        n, i = first // step.out_height, first % step.out_height
        count = min(last - first, step.out_height - i)
        for panel in range(plane_count(step.out_channels, PANEL)):
            start = step.out + panel * PANEL_VECTORS * step.out_plane + first * step.out_width * LANES
            convolve_rows(step, arrays, n, i, i + count, panel, Map(start, step.out_plane))
        first += count


@compiled
def convolve_rows(step: Any, arrays: Arrays, n: int, first: int, last: int, panel: int, out: Map) -> None:
    """Compute the output rows [first, last) of image n for one panel of channels; `out` is the first of them."""
    keep_apart()
    first_inside, last_inside = _inside(step.width, step.kernel_width, step.pad_left, step.out_width, step)
    first_full, last_full = _inside(step.height, step.kernel_height, step.pad_top, step.out_height, step)
    for i in range(first, last):
        row = Map(out.start + (i - first) * step.out_width * LANES, out.plane)
        is_full = first_full <= i < last_full and last_inside - first_inside >= SMALL
        for j in range(step.out_width):
            if not (is_full and first_inside <= j < last_inside):
                _border_pixel(step, arrays, n, i, j, panel, Map(row.start + j * LANES, row.plane))
        if is_full:
            _tile_row(step, arrays, n, i, first_inside, last_inside, panel, row)


@compiled
def _source(step: Any, arrays: Arrays) -> Any:
    return arrays.pixels if step.is_from_pixels else arrays.arena


@compiled
def _first_tap(step: Any, n: int, i: int, j: int) -> int:
    """Return where the first pixel of a window lies, or would lie if the image went on."""
    row, column = i * step.stride - step.pad_top, j * step.stride - step.pad_left
    start: int = step.x + n * step.x_image + row * step.x_row + column * step.x_pixel
    return start


@compiled
def _term_count(step: Any) -> int:
    count: int = step.kernel_height * step.kernel_width * step.channels
    return count


@compiled
def _inside(size: int, kernel_size: int, before: int, out_size: int, step: Any) -> tuple[int, int]:
    """Return the outputs whose whole window lies inside the image."""
    first, _ = valid_range(0, size, step.stride, before, out_size)
    _, last = valid_range((kernel_size - 1) * step.dilation, size, step.stride, before, out_size)
    return first, last


@compiled
def _vectors(step: Any, panel: int) -> int:
    count: int = min(PANEL_VECTORS, plane_count(step.out_channels, LANES) - panel * PANEL_VECTORS)
    return count


@compiled
def _tile_row(step: Any, arrays: Arrays, n: int, i: int, first: int, last: int, panel: int, out: Map) -> None:
    """Compute the columns [first, last) of output row i, which begins where out does."""
    source, finish, vectors = _source(step, arrays), finish_of(step), _vectors(step, panel)
    count = _term_count(step)
    weight = step.weight + panel * PANEL * (count + 2)
    j = first
    while j < last:
        j = min(j, last - SMALL)
        x = TapWindows(_first_tap(step, n, i, j), step.stride * step.x_pixel, step.taps)
        term = 0
        while term < count:
            terms = Terms(weight, count, term, step.block)
            _tile(source, arrays, SMALL, vectors, terms, x, Map(out.start + j * LANES, out.plane), finish)
            term += step.block
        j += SMALL


@compiled
def _border_pixel(step: Any, arrays: Arrays, n: int, i: int, j: int, panel: int, out: Map) -> None:
    """Compute one output pixel, skipping the taps that lie outside the image."""
    keep_apart()
    source, weights, arena, taps = _source(step, arrays), arrays.weights, arrays.arena, arrays.taps
    terms, vectors, finish = _term_count(step), _vectors(step, panel), finish_of(step)
    weight, window = step.weight + panel * PANEL * (terms + 2), _first_tap(step, n, i, j)
    top, left = i * step.stride - step.pad_top, j * step.stride - step.pad_left
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
                    value = broadcast(source[window + taps[step.taps + k]])
                    block = fma(value, load(weights, lane + k * vectors * LANES), block)
        if blocks > 0:  # and blocks of which every tap lies outside add zero, which leaves any sum as it is
            block = add(total, block)
        factor = load(weights, lane + terms * vectors * LANES)
        result = fma(block, factor, load(weights, lane + (terms + 1) * vectors * LANES))
        store(arena, out.start + vector * out.plane, clamp(result, finish.low, finish.high))


@compiled
def _taps_inside(start: int, count: int, dilation: int, size: int) -> tuple[int, int]:
    """Return the taps k of `count` for which start + k * dilation lies within 0..size."""
    first = 0 if start >= 0 else (-start + dilation - 1) // dilation
    last = min(count, (size - start + dilation - 1) // dilation)
    return first, last
