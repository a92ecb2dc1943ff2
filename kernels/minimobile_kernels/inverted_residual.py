"""Three convolutions in one, band by band of rows: what lies between them never leaves the caches."""

from __future__ import annotations

from typing import Any, NamedTuple

from minimobile_kernels._jit import compiled
from minimobile_kernels.conv2d import convolve_rows
from minimobile_kernels.depthwise import filter_rows
from minimobile_kernels.filter import Rows
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.pointwise import multiply
from minimobile_kernels.separable import project_rows
from minimobile_kernels.simd import load, store
from minimobile_kernels.step import KINDS, PANEL_VECTORS, Arrays, Map

CONV2D = KINDS.index("conv2d")


class Kept(NamedTuple):
    """Which rows between two convolutions lie in a thread's scratch memory, and the band that they were kept for."""

    band: int
    first_row: int
    last_row: int


@compiled
def inverted_residual(
    expand: Any, step: Any, project: Any, arrays: Arrays, part: int, parts: int, thread: int, kept: Kept
) -> Kept:
    """Do `expand`, a pointwise or dense convolution, `step`, the depthwise one of its result, and `project`.

    That is a pointwise one of what `step` makes. All of it is done for a band of `project.rows` rows before the next
    one. This thread's scratch memory of `step` has the expanded rows of a panel, that of `project` the filtered rows of
    all channels and, behind them, the expanded rows of all channels that the next band needs as well: `kept` is what
    this function returned for the part that the thread did before, of any band below zero where there was none. Each
    value is computed just as by the three kernels alone. Source: Sandler et al., MobileNetV2 (arXiv 1801.04381),
    sections 3.3 and 5.1.
    """
    planes = ceil_div(expand.out_channels, LANES)
    row, out_row = step.width * LANES, step.out_width * LANES
    between = Map(step.x + thread * step.scratch_distance, step.scratch_size // PANEL_VECTORS)
    filtered = Map(project.x + thread * project.scratch_distance, project.rows * out_row)
    tail_plane = project.scratch_size // planes - filtered.plane
    tails = filtered.start + planes * filtered.plane
    bands = ceil_div(step.out_height, project.rows)
    first, last = share(step.batch * bands, 1, part, parts)
    for band in range(first, last):
        n, first_out = band // bands, band % bands * project.rows
        last_out = min(first_out + project.rows, step.out_height)
        first_row, last_row = rows_between(step, first_out, last_out)
        known = kept.last_row - kept.first_row if band == kept.band else 0
        kept = Kept(band + 1, last_row, last_row)  # for the next image nothing
        if last_out < step.out_height:
            next_row, _ = rows_between(step, last_out, last_out + 1)
            kept = Kept(band + 1, min(next_row, last_row), last_row)
        for plane in range(0, planes, PANEL_VECTORS):
            count = min(PANEL_VECTORS, planes - plane)
            tail = Map(tails + plane * tail_plane, tail_plane)
            copy_rows(arrays.arena, tail, between, known * row, count)
            target = Map(between.start + known * row, between.plane)
            expand_rows(expand, arrays, n, first_row + known, last_row, plane // PANEL_VECTORS, target)
            for number in range(count):
                image = between.start + number * between.plane - first_row * row
                rows = Rows(filtered.start + (plane + number) * filtered.plane - first_out * out_row, out_row)
                filter_rows(step, arrays, image, plane + number, rows, first_out, last_out)
            next_rows = Map(between.start + (kept.first_row - first_row) * row, between.plane)
            copy_rows(arrays.arena, next_rows, tail, (kept.last_row - kept.first_row) * row, count)
        project_rows(project, arrays, filtered, n, first_out, last_out)
    return kept


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
    """Copy so many floats of every plane to another place."""
    for plane in range(planes):
        start, distance = target.start + plane * target.plane, source.start - target.start
        distance += plane * (source.plane - target.plane)
        for offset in range(start, start + size, LANES):
            store(arena, offset, load(arena, offset + distance))
