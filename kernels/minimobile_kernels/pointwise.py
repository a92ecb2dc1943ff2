"""Pointwise convolution: a matrix product of pixels and channels, cut into register tiles."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.simd import LANES, keep_apart
from minimobile_kernels.step import plane_count, share
from minimobile_kernels.tile import PANEL, PANEL_VECTORS, TILE_PIXELS, make_tile

LARGE, SMALL, _ = TILE_PIXELS
GROUP = 16  # tiles: their sums and a block of weights fit the first-level cache
BAND_BYTES = 1 << 18  # of x that stays in the second-level cache while all panels pass over it

_large = make_tile(LARGE, PANEL_VECTORS, False)
_small = make_tile(SMALL, PANEL_VECTORS, False)
_single = make_tile(1, PANEL_VECTORS, False)
_large_half = make_tile(LARGE, 1, False)
_small_half = make_tile(SMALL, 1, False)
_single_half = make_tile(1, 1, False)


@inlined
def pointwise_conv2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, part: int, parts: int) -> None:
    """Mix the channels of every pixel: out[p,o] = clamp(bias[o] + sum over ci of x[p,ci] * weight[o,ci] + y[p,o]).

    Defined by reference.pointwise_conv2d, then reference.add where there is a residual y, then the clamp.

    Shapes: x, y, out: maps of P = N*H*W pixels with C_in and C_out channels; weights in panels
    [C_out/PANEL][C_in + 1][PANEL], bias last, the rest panel one vector wide.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1.
    """
    pixels = step.batch * step.height * step.width
    panels = plane_count(step.out_channels, PANEL)
    first_panel, last_panel = 0, panels
    first, last = 0, pixels
    if pixels < 8 * LARGE * parts and panels >= parts:  # small maps: each part takes channels, not pixels
        first_panel, last_panel = share(panels, 1, part, parts)
    else:
        first, last = share(pixels, LARGE, part, parts)
    band = max(BAND_BYTES // (4 * step.channels) // LARGE, 1) * LARGE
    for start in range(first, last, band):
        count = min(band, last - start)
        for panel in range(first_panel, last_panel):
            place = panel * PANEL_VECTORS * step.out_plane + start * LANES
            y = step.y + place if step.y >= 0 else -1
            x_start = step.x + start * LANES
            multiply(step, x, x_start, step.x_plane, weights, arena, taps, y, step.out + place, step.out_plane,
                     count, panel)  # fmt: skip


@compiled
def multiply(
    step: Any, x: Any, x_start: int, x_plane: int, weights: Any, arena: Any, taps: Any, y_start: int,
    out_start: int, out_plane: int, count: int, panel: int,
) -> None:  # fmt: skip
    """Compute `count` neighbouring pixels of one panel of output channels.

    A block of terms passes over a group of tiles before the next one does: its weights stay in the first-level
    cache. What is left at the end is covered by a tile that overlaps the one before and computes the same bits again.
    """
    keep_apart()
    terms = step.channels
    weight = step.weight + panel * PANEL * (terms + 1)
    is_half = (panel + 1) * PANEL_VECTORS > plane_count(step.out_channels, LANES)
    tiled = count // LARGE * LARGE
    for group in range(0, tiled, GROUP * LARGE):
        first = 0
        while first < terms:  # `range` with a step that is not known would divide
            for pixel in range(group, min(group + GROUP * LARGE, tiled), LARGE):
                _call_tile(step, x, x_start, x_plane, weights, weight, first, arena, taps, y_start,
                           out_start, out_plane, pixel, LARGE, is_half)  # fmt: skip
            first += step.block
    pixel = tiled
    while pixel < count:
        size = SMALL if count >= SMALL else 1
        pixel = min(pixel, count - size)
        first = 0
        while first < terms:
            _call_tile(step, x, x_start, x_plane, weights, weight, first, arena, taps, y_start,
                       out_start, out_plane, pixel, size, is_half)  # fmt: skip
            first += step.block
        pixel += size


@inlined
def _call_tile(
    step: Any, x: Any, x_start: int, x_plane: int, weights: Any, weight: int, first: int, arena: Any, taps: Any,
    y_start: int, out_start: int, out_plane: int, pixel: int, size: int, is_half: bool,
) -> None:  # fmt: skip
    """Call the tile of `size` pixels on the pixels from `pixel` on."""
    terms, block, low, high = step.channels, step.block, step.low, step.high
    source = x_start + pixel * LANES
    out = out_start + pixel * LANES
    y = y_start + pixel * LANES if y_start >= 0 else -1
    if size == LARGE and is_half:
        _large_half(
            x, source, x_plane, taps, weights, weight, terms, first, block, arena, y, arena, out, out_plane, low, high
        )
    elif size == LARGE:
        _large(
            x, source, x_plane, taps, weights, weight, terms, first, block, arena, y, arena, out, out_plane, low, high
        )
    elif size == SMALL and is_half:
        _small_half(
            x, source, x_plane, taps, weights, weight, terms, first, block, arena, y, arena, out, out_plane, low, high
        )
    elif size == SMALL:
        _small(
            x, source, x_plane, taps, weights, weight, terms, first, block, arena, y, arena, out, out_plane, low, high
        )
    elif is_half:
        _single_half(
            x, source, x_plane, taps, weights, weight, terms, first, block, arena, y, arena, out, out_plane, low, high
        )
    else:
        _single(
            x, source, x_plane, taps, weights, weight, terms, first, block, arena, y, arena, out, out_plane, low, high
        )
