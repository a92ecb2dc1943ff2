"""Three convolutions in one, band by band of rows: what lies between them never leaves the caches."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.depthwise import filter_rows
from minimobile_kernels.expanded import Kept, copy_rows, expand_rows, rows_between
from minimobile_kernels.filter import Rows
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.pointwise import multiply
from minimobile_kernels.step import PANEL_VECTORS, Arrays, Map


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
    planes, panels = ceil_div(expand.out_channels, LANES), ceil_div(project.out_channels, PANEL_VECTORS * LANES)
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
        known = kept.last_row - kept.first_row if band == kept.item else 0
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
        place = project.out + (n * step.out_height + first_out) * out_row
        for panel in range(panels):
            out = Map(place + panel * PANEL_VECTORS * project.out_plane, project.out_plane)
            multiply(project, arrays, filtered, out, (last_out - first_out) * step.out_width, panel)
    return kept
