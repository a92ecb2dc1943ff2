"""Convolution of maps of bytes: panels of output channels over rows of pixels."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.quantized.dot_tile import TILE_PIXELS, make_dot_tile
from minimobile_kernels.quantized.requantize import requantize
from minimobile_kernels.simd import LANES, keep_apart
from minimobile_kernels.step import plane_count, share
from minimobile_kernels.tile import PANEL_VECTORS

LARGE, SMALL, _ = TILE_PIXELS
LARGEST = PANEL_VECTORS * LARGE  # of a panel with one vector
CONV2D_SUMS = LARGEST * LANES  # int32 that a tile needs
BAND_BYTES = 1 << 18  # of x that stays in the second-level cache while all panels pass over it
PANEL_TABLE = 3  # first tap, number of groups, where the weights begin

_large = make_dot_tile(LARGE, PANEL_VECTORS)
_small = make_dot_tile(SMALL, PANEL_VECTORS)
_single = make_dot_tile(1, PANEL_VECTORS)
_largest_half = make_dot_tile(LARGEST, 1)
_large_half = make_dot_tile(LARGE, 1)
_small_half = make_dot_tile(SMALL, 1)
_single_half = make_dot_tile(1, 1)


@inlined
def conv2d(step: Any, x: Any, weights: Any, scales: Any, taps: Any, arena: Any, sums: Any, part: int, parts: int,
           place: int) -> None:  # fmt: skip
    """Convolve maps of bytes: a dense convolution of a packed image, or a pointwise one of a map.

    Defined by reference.conv2d. A pointwise convolution is one long row of pixels.

    Shapes: x: a packed image or a map; weights in panels, [groups][channels of the panel][GROUP] signed bytes, and for
    every panel the offsets of its groups in `taps`: where a weight minus its zero point is too large for a byte, its
    group is there a second time for what is left.
    """
    rows = step.batch * step.out_height
    panels = plane_count(step.out_channels, PANEL_VECTORS * LANES)
    if rows == 1:  # one long row of pixels: pieces of it, or, where it is short, panels of channels
        if step.out_width < 8 * LARGE * parts and panels >= parts:
            first_panel, last_panel = share(panels, 1, part, parts)
            first, last = 0, step.out_width
        else:
            first_panel, last_panel = 0, panels
            first, last = share(step.out_width, LARGE, part, parts)
        band = max(BAND_BYTES // step.channels // LARGE, 1) * LARGE
        for start in range(first, last, band):
            count = min(band, last - start)
            for panel in range(first_panel, last_panel):
                _convolve(step, x, step.x + start * step.x_pixel, weights, scales, taps, arena,
                          step.out + start * LANES, count, panel, sums, place)  # fmt: skip
        return
    first, last = share(rows, 1, part, parts)
    for row in range(first, last):
        n, i = row // step.out_height, row % step.out_height
        for panel in range(panels):
            _convolve(step, x, step.x + n * step.x_image + i * step.stride * step.x_row, weights, scales, taps, arena,
                      step.out + row * step.out_width * LANES, step.out_width, panel, sums, place)  # fmt: skip


@compiled
def _convolve(
    step: Any, x: Any, x_start: int, weights: Any, scales: Any, taps: Any, arena: Any, out: int, count: int,
    panel: int, sums: Any, place: int,
) -> None:  # fmt: skip
    """Compute `count` neighbouring pixels of one panel of output channels.

    What is left at the end is covered by a tile that overlaps the one before and computes the same bytes again.
    """
    keep_apart()
    table = step.panels + panel * PANEL_TABLE
    first, groups, weight = taps[table], taps[table + 1], taps[table + 2]
    planes = plane_count(step.out_channels, LANES)
    plane = panel * PANEL_VECTORS
    vectors = min(PANEL_VECTORS, planes - plane)
    is_half = vectors < PANEL_VECTORS
    x_step = step.x_pixel
    pixel = 0
    while pixel < count:
        size = LARGEST if is_half and count - pixel >= LARGEST else LARGE
        if count - pixel < LARGE:
            size = SMALL if count >= SMALL else 1
            pixel = min(pixel, count - size)
        source = x_start + pixel * x_step
        if size == LARGEST:
            _largest_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == LARGE and is_half:
            _large_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == LARGE:
            _large(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == SMALL and is_half:
            _small_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == SMALL:
            _small(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif is_half:
            _single_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        else:
            _single(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        target = out + plane * step.out_plane + pixel * LANES
        requantize(step, sums, place, 1, 0, size, vectors * LANES, plane, vectors, scales, arena, target, 0)
        pixel += size
