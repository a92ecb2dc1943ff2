"""Pointwise convolution: a matrix product of pixels and channels, cut into register tiles."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share, share_panels
from minimobile_kernels.simd import keep_apart
from minimobile_kernels.step import PANEL_VECTORS, Arrays, Map
from minimobile_kernels.tile import ASKED, PANEL, TILE_PIXELS, Terms, finish_of, make_tile

LARGE, SMALL, _ = TILE_PIXELS
GROUP = 16  # tiles: their sums and a block of weights fit the first-level cache
BAND_BYTES = 1 << 18  # of x that stays in the second-level cache while all panels pass over it

MIDDLE, PAIR = (SMALL + 1) // 2, 2
# What is left of 100 pixels are 2, and of 361 are 4: SSDLite on 300 pixels 1.03 with no tile between SMALL and one.
_SIZES = dict.fromkeys((LARGE, SMALL, MIDDLE, PAIR, 1))
_tile = make_tile([(pixels, vectors, LANES) for pixels in _SIZES for vectors in (PANEL_VECTORS, 1)])


@compiled
def pointwise_conv2d(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Mix the channels of every pixel: out[p,o] = clamp(f[o] * sum over ci of x[p,ci] * w[o,ci] + bias[o] + y[p,o]).

    Defined by reference.pointwise_conv2d, then reference.add where there is a residual y, then the clamp.

    Shapes: x, y, out: maps of P = N*H*W pixels with C_in and C_out channels; weights in panels
    [C_out/PANEL][C_in + 2][PANEL], factor f and bias last, the rest panel one vector wide.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1.
    """
    pixels = step.batch * step.height * step.width
    planes = ceil_div(step.out_channels, LANES)
    tiles = ceil_div(pixels, LARGE)
    first_tile, last_tile = 0, ceil_div(planes, PANEL_VECTORS) * tiles  # panel by panel
    first, last = 0, pixels
    if pixels < 8 * LARGE * parts:  # small maps: each part takes channels, not pixels
        first_tile, last_tile = share_panels(planes, tiles, part, parts)
    else:
        first, last = share(pixels, LARGE, part, parts)
    band = max(BAND_BYTES // (4 * step.channels) // LARGE, 1) * LARGE
    for start in range(first, last, band):
        for panel in range(first_tile // tiles, ceil_div(last_tile, tiles)):
            begin = max(start, (first_tile - panel * tiles) * LARGE)
            count = min(start + band, last, (last_tile - panel * tiles) * LARGE) - begin
            if count > 0:
                x = Map(step.x + begin * LANES, step.x_plane)
                out = Map(step.out + panel * PANEL_VECTORS * step.out_plane + begin * LANES, step.out_plane)
                multiply(step, arrays, x, out, count, panel)


@compiled
def multiply(step: Any, arrays: Arrays, x: Map, out: Map, count: int, panel: int) -> None:
    """Compute `count` neighbouring pixels of one panel of output channels.

    A block of terms passes over a group of tiles before the next one does: its weights stay in the first-level
    cache. What is left at the end is covered by a tile that overlaps the one before and computes the same bits again.
    Each tile asks for a share of the weights that come next, so that memory is at work all the time and not for the
    first tile of each panel alone.
    """
    keep_apart()
    arena, channels, block, finish = arrays.arena, step.channels, step.block, finish_of(step)
    weight = step.weight + panel * PANEL * (channels + 2)
    vectors = min(PANEL_VECTORS, ceil_div(step.out_channels, LANES) - panel * PANEL_VECTORS)
    tiled = count // LARGE * LARGE
    next_panel, asked = weight + PANEL * (channels + 2), ASKED * channels
    for group in range(0, tiled, GROUP * LARGE):
        first = 0
        while first < channels:  # `range` with a step that is not known would divide
            ahead = next_panel
            for pixel in range(group, min(group + GROUP * LARGE, tiled), LARGE):
                terms = Terms(weight, channels, first, block, ahead)
                ahead += asked
                _tile(arena, arrays, LARGE, vectors, terms, _at(x, pixel), _at(out, pixel), finish)
            first += block
    pixel, ahead = tiled, next_panel + tiled // LARGE % GROUP * asked
    while pixel < count:
        size = _choose_rest(count - pixel, count)
        pixel = min(pixel, count - size)
        first = 0
        while first < channels:
            terms = Terms(weight, channels, first, block, ahead)
            _tile(arena, arrays, size, vectors, terms, _at(x, pixel), _at(out, pixel), finish)
            first += block
        pixel += size


@compiled
def _choose_rest(left: int, count: int) -> int:
    """Return the pixels of the smallest tile that covers what is left, of those that fit the map."""
    if left > MIDDLE and count >= SMALL:
        return SMALL
    if left > PAIR and count >= MIDDLE:
        return MIDDLE
    return min(left, PAIR)


@compiled
def _at(place: Map, pixel: int) -> Map:
    """Return where the pixels from `pixel` on lie."""
    return Map(place.start + pixel * LANES, place.plane)
