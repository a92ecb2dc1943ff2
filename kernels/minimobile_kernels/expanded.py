"""A convolution and the depthwise one after it in one: the map between them never leaves the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

from minimobile_kernels._jit import compiled
from minimobile_kernels.conv2d import convolve_rows
from minimobile_kernels.depthwise import ROWS, filter_rows, out_rows
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share_panels
from minimobile_kernels.pointwise import multiply
from minimobile_kernels.simd import load, store
from minimobile_kernels.step import KINDS, PANEL_VECTORS, Arrays, Map

CONV2D = KINDS.index("conv2d")


class Kept(NamedTuple):
    """Which rows between two convolutions lie in a thread's scratch memory, and the item that they were kept for."""

    item: int
    first_row: int
    last_row: int


@compiled
def expanded_depthwise_conv2d(
    expand: Any, step: Any, arrays: Arrays, part: int, parts: int, thread: int, kept: Kept
) -> Kept:
    """Do `expand`, a pointwise or dense convolution, and `step`, the depthwise convolution of its result.

    Panel by panel of the channels between them and, on large maps, chunk by chunk of rows: the rows of that map
    that a chunk needs are computed into this thread's scratch memory and filtered from there; those that the chunk
    before had as well are moved, not computed again: `kept` is what this function returned for the part that the thread
    did before, of any item below zero where there was none of this step. Each value is computed just as by the two
    kernels alone. Source: Sandler et al., MobileNetV2 (arXiv 1801.04381), section 5.1.
    """
    planes = ceil_div(expand.out_channels, LANES)
    row_size = step.width * LANES
    most_rows = step.scratch_size // (PANEL_VECTORS * row_size)
    between = Map(step.x + thread * step.scratch_distance, most_rows * row_size)
    sections = step.sections if parts > 1 and parts % step.sections == 0 else 1
    pieces, chunk = _count_pieces(step, most_rows, sections)
    total = step.batch * pieces
    length, share = ceil_div(total, sections), parts // sections  # of a section: its pieces, and its parts
    begin, end = part // share * length, min((part // share + 1) * length, total)
    item, last = share_panels(planes, length, part % share, share)
    before = begin * ceil_div(planes, PANEL_VECTORS)  # items of other sections: no two have the same number
    while item < last:
        panel, place = item // length, begin + item % length
        if place >= end:  # the last section is shorter
            item = (panel + 1) * length
            continue
        n, piece = place // pieces, place % pieces
        count = min(chunk, pieces - piece, end - place, last - item)
        first_out, last_out = _first_row(step, piece, pieces), _first_row(step, piece + count, pieces)
        first_row, last_row = rows_between(step, first_out, last_out)
        if piece == 0 or place == begin or before + item != kept.item:
            kept = Kept(before + item, first_row, first_row)
        known = max(0, kept.last_row - first_row)
        known_rows = Map(between.start + (first_row - kept.first_row) * row_size, between.plane)
        copy_rows(arrays.arena, known_rows, between, known * row_size, PANEL_VECTORS)
        start = min(first_row + known, last_row)
        target = Map(between.start + known * row_size, between.plane)
        expand_rows(expand, arrays, n, start, last_row, panel, target)
        for plane in range(panel * PANEL_VECTORS, min((panel + 1) * PANEL_VECTORS, planes)):
            image = between.start + (plane - panel * PANEL_VECTORS) * between.plane - first_row * row_size
            filter_rows(step, arrays, image, plane, out_rows(step, plane, n), first_out, last_out)
        item += count
        kept = Kept(before + item, first_row, last_row)
    return kept


@compiled
def _count_pieces(step: Any, most_rows: int, sections: int) -> tuple[int, int]:
    """Return the pieces that the output rows of an image make, and how many of them are done at once, in a chunk.

    A piece is as many rows as a filter's tile has, or fewer, so that all sections have as many pieces. A chunk is the
    whole map where its input fits the scratch memory, else one of several of about one size.
    """
    rows, most = min(ROWS, step.out_height), step.out_height
    if most_rows < step.height:
        reach = (step.kernel_height - 1) * step.dilation + 1
        most = max(1, min(step.out_height, (most_rows - reach) // step.stride + 1))
        rows = min(ROWS, most)
    pieces = ceil_div(step.out_height, rows)
    if step.batch * pieces % sections and pieces >= sections:
        pieces = min(ceil_div(pieces, sections) * sections, step.out_height)
    chunks = ceil_div(pieces, most // rows) if most < step.out_height else 1
    return pieces, ceil_div(pieces, chunks)


@compiled
def _first_row(step: Any, piece: int, pieces: int) -> int:
    """Return the output row with which a piece begins: with pieces as long as a filter's tile is, none is split."""
    height: int = step.out_height
    rows = min(ROWS, ceil_div(height, pieces))
    return min(piece * rows, height) if ceil_div(height, rows) == pieces else height * piece // pieces


@compiled
def expand_rows(expand: Any, arrays: Arrays, n: int, first: int, last: int, panel: int, out: Map) -> None:
    """Compute the rows [first, last) of image n for one panel of channels; `out` is the first of them."""
    if expand.kind == CONV2D:
        convolve_rows(expand, arrays, n, first, last, panel, out)
    else:
        x = Map(expand.x + (n * expand.height + first) * expand.width * LANES, expand.x_plane)
        multiply(expand, arrays, x, out, (last - first) * expand.width, panel)


@compiled
def rows_between(step: Any, first_out: int, last_out: int) -> tuple[int, int]:
    """Return the rows of the map between that the output rows [first_out, last_out) need."""
    reach = (step.kernel_height - 1) * step.dilation + 1
    first_row = min(max(0, first_out * step.stride - step.pad_top), step.height)
    last_row = min(step.height, (last_out - 1) * step.stride - step.pad_top + reach)
    return first_row, max(first_row, last_row)


@compiled
def copy_rows(arena: Any, source: Map, target: Map, size: int, planes: int) -> None:
    """Copy so many floats of every plane to where they may begin before the source, but not within it."""
    for plane in range(planes):
        start, distance = target.start + plane * target.plane, source.start - target.start
        distance += plane * (source.plane - target.plane)
        for offset in range(start, start + size, LANES):
            store(arena, offset, load(arena, offset + distance))
