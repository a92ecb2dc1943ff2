"""Pointwise convolution: a matrix product of pixels and channels, cut into register tiles."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.simd import LANES, keep_apart
from minimobile_kernels.step import plane_count, share
from minimobile_kernels.tile import PANEL, PANEL_VECTORS, TILE_PIXELS, make_tile

LARGE, SMALL, _ = TILE_PIXELS
BAND_BYTES = 1 << 18  # of x that stays in the second-level cache while all panels pass over it

_large = make_tile(LARGE, PANEL_VECTORS, False)
_small = make_tile(SMALL, PANEL_VECTORS, False)
_single = make_tile(1, PANEL_VECTORS, False)
_large_half = make_tile(LARGE, 1, False)
_small_half = make_tile(SMALL, 1, False)
_single_half = make_tile(1, 1, False)


@compiled
def pointwise_conv2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
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
    if pixels < 8 * LARGE * threads and panels >= threads:  # small maps: each thread takes channels, not pixels
        first_panel, last_panel = share(panels, 1, thread, threads)
    else:
        first, last = share(pixels, LARGE, thread, threads)
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
    """Compute `count` neighbouring pixels of one panel of output channels with the largest tiles that fit.

    What is left at the end is covered by a tile that overlaps the one before: it computes the same bits again.
    """
    keep_apart()
    terms, low, high = step.channels, step.low, step.high
    weight = step.weight + panel * PANEL * (terms + 1)
    is_half = (panel + 1) * PANEL_VECTORS > plane_count(step.out_channels, LANES)
    done = 0
    while done < count:
        left = count - done
        if left < SMALL <= count:
            done = count - SMALL
        source = x_start + done * LANES
        out = out_start + done * LANES
        y = y_start + done * LANES if y_start >= 0 else -1
        if left >= LARGE:
            if is_half:
                _large_half(
                    x, source, x_plane, taps, weights, weight, terms, arena, y, arena, out, out_plane, low, high
                )
            else:
                _large(x, source, x_plane, taps, weights, weight, terms, arena, y, arena, out, out_plane, low, high)
            done += LARGE
        elif count >= SMALL:
            if is_half:
                _small_half(
                    x, source, x_plane, taps, weights, weight, terms, arena, y, arena, out, out_plane, low, high
                )
            else:
                _small(x, source, x_plane, taps, weights, weight, terms, arena, y, arena, out, out_plane, low, high)
            done += SMALL
        else:
            if is_half:
                _single_half(
                    x, source, x_plane, taps, weights, weight, terms, arena, y, arena, out, out_plane, low, high
                )
            else:
                _single(x, source, x_plane, taps, weights, weight, terms, arena, y, arena, out, out_plane, low, high)
            done += 1
