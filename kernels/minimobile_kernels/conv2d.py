"""Dense convolution, MobileNet's first layer: between the sides of the image several pixels at once, else one."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.geometry import valid_range as _valid_range
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.simd import keep_apart
from minimobile_kernels.step import PANEL_VECTORS, Arrays, Map
from minimobile_kernels.tile import PANEL, TILE_PIXELS, TapWindows, Terms, finish_of, make_tile

LARGE, SMALL, _ = TILE_PIXELS
STEP = 2  # of windows that slide by two pixels over planes of channels, as MobileNet's do

valid_range = compiled(_valid_range)
# With a step that is known later the addresses of so many pixels do not fit the registers.
_SHAPES = [(LARGE, STEP), (SMALL, None), (1, None)]
_tile = make_tile([(pixels, vectors, step) for pixels, step in _SHAPES for vectors in (PANEL_VECTORS, 1)])


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
        for panel in range(ceil_div(step.out_channels, PANEL)):
            start = step.out + panel * PANEL_VECTORS * step.out_plane + first * step.out_width * LANES
            convolve_rows(step, arrays, n, i, i + count, panel, Map(start, step.out_plane))
        first += count


@compiled
def convolve_rows(step: Any, arrays: Arrays, n: int, first: int, last: int, panel: int, out: Map) -> None:
    """Compute the output rows [first, last) of image n for one panel of channels; `out` is the first of them.

    Where windows lie inside the image from left to right, several are done at once, else one.
    """
    keep_apart()
    kernel_width, width, dilation = step.kernel_width, step.width, step.dilation
    first_inside, _ = valid_range(0, width, step.stride, step.pad_left, step.out_width)
    _, last_inside = valid_range((kernel_width - 1) * dilation, width, step.stride, step.pad_left, step.out_width)
    has_large = step.stride * step.x_pixel == STEP and last_inside - first_inside >= LARGE
    has_small = last_inside - first_inside >= SMALL
    for i in range(first, last):
        row = Map(out.start + (i - first) * step.out_width * LANES, out.plane)
        down = _taps_inside(i * step.stride - step.pad_top, step.kernel_height, dilation, step.height)
        j = 0
        while j < step.out_width:
            pixels, right = 1, (0, kernel_width)
            if first_inside <= j < last_inside:
                if has_large and last_inside - j > SMALL:
                    pixels = LARGE
                elif has_small:
                    pixels = SMALL
                j = min(j, last_inside - pixels)
            else:
                right = _taps_inside(j * step.stride - step.pad_left, kernel_width, dilation, width)
            x = _find_terms(step, n, i, j, down, right)
            _multiply(step, arrays, x, pixels, panel, Map(row.start + j * LANES, row.plane))
            j += pixels


@compiled
def _first_tap(step: Any, n: int, i: int, j: int) -> int:
    """Return where the first pixel of a window lies, or would lie if the image went on."""
    row, column = i * step.stride - step.pad_top, j * step.stride - step.pad_left
    start: int = step.x + n * step.x_image + row * step.x_row + column * step.x_pixel
    return start


@compiled
def _find_terms(step: Any, n: int, i: int, j: int, down: tuple[int, int], right: tuple[int, int]) -> TapWindows:
    """Return the windows from output pixel (i, j) of image n on, with the taps [first, last) of rows and of columns."""
    size = step.kernel_width * step.channels
    first = down[0] * size + right[0] * step.channels
    length, runs = (right[1] - right[0]) * step.channels, down[1] - down[0]
    if length == size:  # whole rows lie side by side
        length, runs = length * runs, 1
    return TapWindows(_first_tap(step, n, i, j), step.stride * step.x_pixel, step.taps, first, length, runs, size)


@compiled
def _multiply(step: Any, arrays: Arrays, x: TapWindows, pixels: int, panel: int, out: Map) -> None:
    """Compute so many neighbouring pixels of one panel of channels: `LARGE`, `SMALL` or one."""
    source = arrays.pixels if step.is_from_pixels else arrays.arena
    finish, count = finish_of(step), step.kernel_height * step.kernel_width * step.channels
    vectors = min(PANEL_VECTORS, ceil_div(step.out_channels, LANES) - panel * PANEL_VECTORS)
    weight = step.weight + panel * PANEL * (count + 2)
    term = 0
    while term < count:
        _tile(source, arrays, pixels, vectors, Terms(weight, count, term, step.block, 0), x, out, finish)
        term += step.block


@compiled
def _taps_inside(start: int, count: int, dilation: int, size: int) -> tuple[int, int]:
    """Return the taps k of `count` for which start + k * dilation lies within 0..size."""
    first = 0 if start >= 0 else ceil_div(-start, dilation)
    last = min(count, ceil_div(size - start, dilation))
    return first, last
