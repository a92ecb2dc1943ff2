"""Convolution of maps of bytes: panels of output channels over rows of pixels."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.amx import HAS_TILES
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share, share_panels
from minimobile_kernels.quantized.constants import SCALES_BYTES, VECTOR_BYTES
from minimobile_kernels.quantized.dot_tile import TILE_PIXELS, Pixels, make_dot_tile
from minimobile_kernels.quantized.estimate import Bytes
from minimobile_kernels.quantized.panels import count_vectors, load_panel
from minimobile_kernels.quantized.requantize import requantize
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.quantized.tiled_product import tiled_product
from minimobile_kernels.simd import keep_apart
from minimobile_kernels.step import PANEL_VECTORS

LARGE, SMALL, _ = TILE_PIXELS
LARGEST = PANEL_VECTORS * LARGE  # of a panel with one vector
CONV2D_SUM_BYTES = LARGEST * VECTOR_BYTES  # for the sums of a tile
BAND_BYTES = 1 << 18  # of x that stays in the second-level cache while all panels pass over it

_tile = make_dot_tile([(LARGEST, 1), *[(pixels, vectors) for pixels in TILE_PIXELS for vectors in (PANEL_VECTORS, 1)]])


@compiled
def conv2d(step: Any, arrays: Arrays, part: int, parts: int, sums: int) -> None:
    """Convolve maps of bytes: a dense convolution of a packed image, or a pointwise one of a map.

    Defined by reference.conv2d. A pointwise convolution is one long row of pixels. This thread's sums begin at `sums`.

    Shapes: x: a packed image or a map; weights in panels, [groups][channels of the panel][GROUP] signed bytes, and at
    `step.panels` a `panels.Panel` for each, with the offsets of its groups: where a weight minus its zero point is too
    large for a byte, its group is there a second time for what is left.
    """
    if HAS_TILES and step.tile_terms > 0:  # Numba leaves out what a constant excludes: elsewhere it has no machine code
        tiled_product(step, arrays, part, parts, sums)
        return
    rows = step.batch * step.out_height
    planes = ceil_div(step.out_channels, LANES)
    panels = ceil_div(planes, PANEL_VECTORS)
    if rows == 1:  # one long row of pixels: pieces of it, or, where it is short, panels of channels
        pixels = step.out_width
        tiles = ceil_div(pixels, LARGE)
        first_tile, last_tile = 0, panels * tiles  # panel by panel
        first, last = 0, pixels
        if pixels < 8 * LARGE * parts:
            first_tile, last_tile = share_panels(planes, tiles, part, parts)
        else:
            first, last = share(pixels, LARGE, part, parts)
        band = max(BAND_BYTES // step.channels // LARGE, 1) * LARGE
        for start in range(first, last, band):
            for panel in range(first_tile // tiles, ceil_div(last_tile, tiles)):
                begin = max(start, (first_tile - panel * tiles) * LARGE)
                count = min(start + band, last, (last_tile - panel * tiles) * LARGE) - begin
                if count > 0:
                    x = step.x + begin * step.x_pixel
                    _convolve(step, arrays, x, step.out + begin * LANES, count, panel, sums)
        return
    first, last = share(rows, 1, part, parts)
    for row in range(first, last):
        x = step.x + row // step.out_height * step.x_image + row % step.out_height * step.stride * step.x_row
        for panel in range(panels):
            _convolve(step, arrays, x, step.out + row * step.out_width * LANES, step.out_width, panel, sums)


@compiled
def _convolve(step: Any, arrays: Arrays, x: int, out: int, count: int, panel: int, sums: int) -> None:
    """Compute `count` neighbouring pixels of one panel of output channels, from the bytes at `x` on.

    What is left at the end is covered by a tile that overlaps the one before and computes the same bytes again.
    """
    keep_apart()
    weights, vectors = load_panel(step, arrays.constants, panel), count_vectors(step, panel)
    plane = panel * PANEL_VECTORS
    target, x_pixel, scales = out + plane * step.out_plane, step.x_pixel, step.scales + plane * SCALES_BYTES
    has_negative = int(step.low < step.out_zero)
    pixel = 0
    while pixel < count:
        size = LARGEST if vectors == 1 and count - pixel >= LARGEST else LARGE
        if count - pixel < LARGE:
            size = SMALL if count >= SMALL and count - pixel > 1 else 1
            pixel = min(pixel, count - size)
        to = Bytes(target + pixel * LANES, step.out_plane, scales, SCALES_BYTES, step.low, step.high, has_negative)
        doubts = _tile(arrays, size, vectors, Pixels(x + pixel * x_pixel, x_pixel), weights, to, sums)
        if doubts:
            requantize(step, arrays, sums, size, doubts, to)
        pixel += size
