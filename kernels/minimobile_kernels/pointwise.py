"""Pointwise convolution: a matrix product of pixels and channels, cut into register tiles."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.simd import LANES
from minimobile_kernels.step import share
from minimobile_kernels.tile import PANEL_VECTORS, TILE_PIXELS, make_tile

LARGE, SMALL, _ = TILE_PIXELS
PANEL = PANEL_VECTORS * LANES
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

    Shapes: x (P, x_pixel) and y, out (P, out_pixel) with P = N*H*W pixels; weights in panels
    [C_out/PANEL][C_in + 1][PANEL], bias last, the rest panel half as wide.
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1.
    """
    pixels = step.batch * step.height * step.width
    vectors = step.out_pixel // LANES
    panels = (vectors + PANEL_VECTORS - 1) // PANEL_VECTORS
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
            is_half = (panel + 1) * PANEL_VECTORS > vectors
            _cover(step, x, weights, arena, taps, start, count, panel * PANEL, is_half)


@compiled
def _cover(
    step: Any, x: Any, weights: Any, arena: Any, taps: Any, start: int, count: int, channel: int, is_half: bool
) -> None:
    """Compute `count` pixels of one panel with the largest tiles that fit.

    What is left at the end is covered by a tile that overlaps the one before: it computes the same bits again.
    """
    terms, x_step, out_step = step.channels, step.x_pixel, step.out_pixel
    low, high = step.low, step.high
    panel = step.weight + channel * (terms + 1)
    done = 0
    while done < count:
        left = count - done
        if left < SMALL <= count:
            done = count - SMALL
        pixel = start + done
        x_start = step.x + pixel * x_step
        out = step.out + pixel * out_step + channel
        y = step.y + pixel * out_step + channel if step.y >= 0 else -1
        if left >= LARGE:
            if is_half:
                _large_half(x, x_start, x_step, taps, weights, panel, terms, arena, y, arena, out, out_step, low, high)
            else:
                _large(x, x_start, x_step, taps, weights, panel, terms, arena, y, arena, out, out_step, low, high)
            done += LARGE
        elif count >= SMALL:
            if is_half:
                _small_half(x, x_start, x_step, taps, weights, panel, terms, arena, y, arena, out, out_step, low, high)
            else:
                _small(x, x_start, x_step, taps, weights, panel, terms, arena, y, arena, out, out_step, low, high)
            done += SMALL
        else:
            if is_half:
                _single_half(x, x_start, x_step, taps, weights, panel, terms, arena, y, arena, out, out_step, low, high)
            else:
                _single(x, x_start, x_step, taps, weights, panel, terms, arena, y, arena, out, out_step, low, high)
            done += 1
