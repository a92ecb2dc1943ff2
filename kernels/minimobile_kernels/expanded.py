"""A convolution and the depthwise one after it in one: the map between them never leaves the cache."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import inlined
from minimobile_kernels.conv2d import convolve_rows
from minimobile_kernels.depthwise import filter_rows
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import plane_count, share
from minimobile_kernels.pointwise import multiply
from minimobile_kernels.simd import load, store
from minimobile_kernels.step import KINDS, PANEL_VECTORS, Arrays, Map
from minimobile_kernels.tile import PANEL

CONV2D = KINDS.index("conv2d")


@inlined
def expanded_depthwise_conv2d(expand: Any, step: Any, arrays: Arrays, part: int, parts: int, thread: int) -> None:
    """Do `expand`, a pointwise or dense convolution, and `step`, the depthwise convolution of its result.

    Panel by panel of the channels between them and, on large maps, chunk by chunk of rows: the rows of that map
    that a chunk needs are computed into this thread's scratch memory and filtered from there; those that the chunk
    before had as well are moved, not computed again. Each value is computed just as by the two kernels alone. Source:
    Sandler et al., MobileNetV2 (arXiv 1801.04381), section 5.1.
    """
    panels = plane_count(expand.out_channels, PANEL)
    planes = plane_count(expand.out_channels, LANES)
    row_size = step.width * LANES
    most_rows = step.scratch_size // (PANEL_VECTORS * row_size)
    between = Map(step.scratch + thread * step.scratch_size, most_rows * row_size)
    chunk = _chunk_rows(step, most_rows, panels * step.batch, parts)
    chunks = (step.out_height + chunk - 1) // chunk
    first, last = share(panels * step.batch * chunks, 1, part, parts)
    first_kept, last_kept = 0, 0  # the rows that lie in the scratch memory
    for item in range(first, last):
        panel, n, piece = item // (step.batch * chunks), item // chunks % step.batch, item % chunks
        first_out = piece * chunk
        last_out = min(first_out + chunk, step.out_height)
        first_row, last_row = _rows_between(step, first_out, last_out)
        if piece == 0 or item == first:
            first_kept, last_kept = first_row, first_row
        known = max(0, last_kept - first_row)
        _move_rows(arrays.arena, between, (first_row - first_kept) * row_size, known * row_size)
        start = min(first_row + known, last_row)
        if expand.kind == CONV2D:
            rows = Map(between.start + known * row_size, between.plane)
            convolve_rows(expand, arrays, n, start, last_row, panel, rows)
        else:
            x = Map(expand.x + (n * step.height + start) * row_size, expand.x_plane)
            rows = Map(between.start + known * row_size, between.plane)
            multiply(expand, arrays, x, rows, (last_row - start) * step.width, panel)
        first_kept, last_kept = first_row, last_row
        for plane in range(panel * PANEL_VECTORS, min((panel + 1) * PANEL_VECTORS, planes)):
            image = between.start + (plane - panel * PANEL_VECTORS) * between.plane - first_row * row_size
            filter_rows(step, arrays, image, plane, n, first_out, last_out)


@inlined
def _chunk_rows(step: Any, most_rows: int, images: int, parts: int) -> int:
    """Return the output rows of a chunk: all where their input fits the scratch memory, or chunks of about one size."""
    reach = (step.kernel_height - 1) * step.dilation + 1
    chunk = step.out_height
    if most_rows < step.height:
        chunk = max(1, min(step.out_height, (most_rows - reach) // step.stride + 1))
    chunks = (step.out_height + chunk - 1) // chunk
    while chunks * images < parts and chunk > 4:
        chunk = (chunk + 1) // 2  # so that there is something for every part
        chunks = (step.out_height + chunk - 1) // chunk
    rows: int = (step.out_height + chunks - 1) // chunks
    return rows


@inlined
def _rows_between(step: Any, first_out: int, last_out: int) -> tuple[int, int]:
    """Return the rows of the map between that the output rows [first_out, last_out) need."""
    reach = (step.kernel_height - 1) * step.dilation + 1
    first_row = min(max(0, first_out * step.stride - step.pad_top), step.height)
    last_row = min(step.height, (last_out - 1) * step.stride - step.pad_top + reach)
    return first_row, max(first_row, last_row)


@inlined
def _move_rows(arena: Any, rows: Map, distance: int, size: int) -> None:
    """Move what lies `distance` after the beginning of the rows to there, in every plane of a panel."""
    if distance > 0:
        for plane in range(PANEL_VECTORS):
            start = rows.start + plane * rows.plane
            for offset in range(start, start + size, LANES):
                store(arena, offset, load(arena, offset + distance))
