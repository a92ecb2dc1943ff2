"""A depthwise convolution and the pointwise one after it in one, band by band of rows."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.depthwise import filter_rows
from minimobile_kernels.filter import Rows
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.pointwise import multiply
from minimobile_kernels.step import PANEL_VECTORS, Arrays, Map


@compiled
def separable_conv2d(step: Any, project: Any, arrays: Arrays, part: int, parts: int, thread: int) -> None:
    """Do `step`, a depthwise convolution, and `project`, the pointwise one of its result.

    Both are done for a band of `project.rows` rows before the next one; the filtered rows of all channels lie in this
    thread's scratch memory of `project`. So a thread finds in its own caches what it has made of the rows before, but
    for those at its bands' ends. Each value is computed just as by the two kernels alone. Source: Howard et al.,
    MobileNets (arXiv 1704.04861), section 3.1.
    """
    row = step.out_width * LANES
    filtered = Map(project.x + thread * project.scratch_distance, project.rows * row)
    bands = ceil_div(step.out_height, project.rows)
    first, last = share(step.batch * bands, 1, part, parts)
    for band in range(first, last):
        n, first_out = band // bands, band % bands * project.rows
        last_out = min(first_out + project.rows, step.out_height)
        image = step.x + n * step.height * step.width * LANES
        for plane in range(ceil_div(step.channels, LANES)):
            rows = Rows(filtered.start + plane * filtered.plane - first_out * row, row)
            filter_rows(step, arrays, image + plane * step.x_plane, plane, rows, first_out, last_out)
        project_rows(project, arrays, filtered, n, first_out, last_out)


@compiled
def project_rows(project: Any, arrays: Arrays, filtered: Map, n: int, first: int, last: int) -> None:
    """Do a pointwise convolution of the rows [first, last) of image n; `filtered` has these rows of its input."""
    out = project.out + (n * project.out_height + first) * project.out_width * LANES
    for panel in range(ceil_div(project.out_channels, PANEL_VECTORS * LANES)):
        place = Map(out + panel * PANEL_VECTORS * project.out_plane, project.out_plane)
        multiply(project, arrays, filtered, place, (last - first) * project.out_width, panel)
