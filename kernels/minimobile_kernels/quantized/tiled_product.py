"""Pointwise convolution of maps of bytes in matrix registers, for processors that have them."""

from __future__ import annotations

from typing import Any, NamedTuple

from minimobile_kernels._jit import compiled
from minimobile_kernels.amx import ROW_BYTES, ROWS
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share, share_panels
from minimobile_kernels.quantized.constants import GATHERED_BYTES, GROUP, SCALES_BYTES, TILE_PLACES, VECTOR_BYTES
from minimobile_kernels.quantized.estimate import STORED, Bytes
from minimobile_kernels.quantized.panels import Panel, count_vectors, load_panel
from minimobile_kernels.quantized.requantize import requantize
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.quantized.tiles import (
    BLOCK_TILES,
    add_groups,
    begin_tiles,
    end_tiles,
    finish_sums,
    gather_pixels,
    multiply_tiles,
    store_tile,
)
from minimobile_kernels.simd import keep_apart
from minimobile_kernels.step import PANEL_VECTORS

PLANES = ROW_BYTES // LANES  # whose bytes of a pixel are a row of a tile
BLOCK = BLOCK_TILES * ROWS  # pixels
TILE_BYTES = ROWS * VECTOR_BYTES
NEAR_BYTES = 1 << 15  # of weights that stay in the first-level cache while pixels pass over them
LEAST_SHARED = 48  # pixels of a part; where there are fewer, parts are panels


class Block(NamedTuple):
    """Neighbouring pixels, at most `BLOCK`, and the panel of output channels that is computed for them."""

    panel: int
    start: int
    pixels: int


@compiled
def tiled_product(step: Any, arrays: Arrays, part: int, parts: int, sums: int) -> None:
    """Multiply the pixels of a map, one long row, by panels of weights. Defined by reference.conv2d.

    Shapes as for `conv2d.conv2d`; the first `step.tile_terms / GROUP` groups of each panel are those of the map's
    channels in order, and what is beyond the last channel has weights of zero. From `sums` on there is room for what
    `constants.TILE_PLACES` says.
    """
    planes = ceil_div(step.out_channels, LANES)
    panels = ceil_div(planes, PANEL_VECTORS)
    first, last = 0, step.out_width
    is_shared = last >= LEAST_SHARED * parts
    if is_shared:
        first, last = share(last, STORED, part, parts)
    blocks = ceil_div(last - first, BLOCK)
    first_item, last_item = 0, panels * blocks  # panel by panel
    if not is_shared:
        first_item, last_item = share_panels(planes, blocks, part, parts)
    band = 1  # blocks that are gathered at once
    if step.tile_terms * step.out_channels > NEAR_BYTES:
        band = GATHERED_BYTES // (BLOCK * step.tile_terms)
    begin_tiles(arrays.arena, sums)
    for begin in range(0, blocks, band):
        end = min(begin + band, blocks)
        _gather(step, arrays, first + begin * BLOCK, min(first + end * BLOCK, last), sums)
        before = Block(0, 0, 0)
        for panel in range(first_item // blocks, ceil_div(last_item, blocks)):
            for number in range(max(begin, first_item - panel * blocks), min(end, last_item - panel * blocks)):
                start = first + number * BLOCK
                block = Block(panel, start, min(BLOCK, last - start))
                _multiply(step, arrays, panel, (number - begin) * BLOCK, sums)
                _exchange(step, arrays, before, count_vectors(step, panel), sums)
                before = block
        _exchange(step, arrays, before, 0, sums)
    end_tiles()


@compiled
def _gather(step: Any, arrays: Arrays, first: int, last: int, sums: int) -> None:
    """Bring all channels of pixels together."""
    keep_apart()
    planes = ceil_div(step.channels, LANES)
    for plane in range(0, planes, PLANES):
        x = step.x + plane * step.x_plane + first * LANES
        to = sums + TILE_PLACES.pixels + plane * LANES
        gather_pixels(arrays.arena, x, step.x_plane, min(PLANES, planes - plane), to, step.tile_terms, last - first)


@compiled
def _multiply(step: Any, arrays: Arrays, panel: int, gathered: int, sums: int) -> None:
    """Compute the sums of a block, in registers; its pixels are the ones gathered from number `gathered` on."""
    keep_apart()
    weight = load_panel(step, arrays.constants, panel).weight
    x = sums + TILE_PLACES.pixels + gathered * step.tile_terms
    scales = step.scales + panel * PANEL_VECTORS * SCALES_BYTES
    multiply_tiles(arrays, x, step.tile_terms, weight, count_vectors(step, panel), scales)


@compiled
def _exchange(step: Any, arrays: Arrays, block: Block, vectors: int, sums: int) -> None:
    """Bring the sums of a block to bytes, and write those to their place that so many vectors have in registers.

    While the registers are at work on the next block, this one's sums come to bytes.
    """
    keep_apart()
    panel = load_panel(step, arrays.constants, block.panel)
    for tile in range(PANEL_VECTORS * BLOCK_TILES):
        vector, start = tile // BLOCK_TILES, tile % BLOCK_TILES * ROWS
        totals = sums + TILE_PLACES.sums + tile * TILE_BYTES
        if vector < count_vectors(step, block.panel) and start < block.pixels:
            some = Block(block.panel, block.start + start, min(ROWS, block.pixels - start))
            if panel.groups > step.tile_terms // GROUP:
                _add_rest(step, arrays, some, panel, vector, totals)
            _finish(step, arrays, some, vector, totals, sums + TILE_PLACES.doubtful)
        if vector < vectors:
            store_tile(arrays.arena, totals, tile)


@compiled
def _add_rest(step: Any, arrays: Arrays, block: Block, panel: Panel, vector: int, totals: int) -> None:
    """Add to the sums of a tile what those weights give that did not fit a byte."""
    vectors = count_vectors(step, block.panel)
    weights = Panel(panel.taps, panel.groups, panel.weight + vector * LANES * GROUP)
    for pixel in range(block.pixels):
        x, place = step.x + (block.start + pixel) * LANES, totals + pixel * VECTOR_BYTES
        add_groups(arrays, place, x, weights, step.tile_terms // GROUP, vectors * LANES * GROUP)


@compiled
def _finish(step: Any, arrays: Arrays, block: Block, vector: int, totals: int, doubtful: int) -> None:
    """Bring the sums of a tile to bytes."""
    plane = block.panel * PANEL_VECTORS + vector
    scales, low, high = step.scales + plane * SCALES_BYTES, step.low, step.high
    target = step.out + plane * step.out_plane + block.start * LANES
    has_negative = int(low < step.out_zero)
    pixel = 0
    while pixel < block.pixels:
        left = block.pixels - pixel
        size = ROWS if left >= ROWS else STORED if left >= STORED else 1
        to = Bytes(target + pixel * LANES, step.out_plane, scales, SCALES_BYTES, low, high, has_negative)
        doubts = finish_sums(arrays, size, totals + pixel * VECTOR_BYTES, to, doubtful)
        if doubts:
            requantize(step, arrays, doubtful, size, doubts, to)
        pixel += size
