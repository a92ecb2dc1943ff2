"""A convolution and the depthwise one after it in one: the map between them never leaves the cache."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import inlined
from minimobile_kernels.conv2d import convolve_rows
from minimobile_kernels.depthwise import filter_rows
from minimobile_kernels.pointwise import multiply
from minimobile_kernels.simd import LANES
from minimobile_kernels.step import KINDS, Arrays, Map, plane_count, share
from minimobile_kernels.tile import PANEL, PANEL_VECTORS

CONV2D = KINDS.index("conv2d")


@inlined
def expanded_depthwise_conv2d(expand: Any, step: Any, arrays: Arrays, part: int, parts: int, thread: int) -> None:
    """Do `expand`, a pointwise or dense convolution, and `step`, the depthwise convolution of its result.

    Panel by panel of the channels between them and, on large maps, chunk by chunk of rows: the rows of that map
    that a chunk needs are computed into this thread's scratch memory and filtered from there. Each value is computed
    just as by the two kernels alone. Source: Sandler et al., MobileNetV2 (arXiv 1801.04381), section 5.1.
    """
    panels = plane_count(expand.out_channels, PANEL)
    planes = plane_count(expand.out_channels, LANES)
    row_size = step.width * LANES
    scratch = step.scratch + thread * step.scratch_size
    most_rows = step.scratch_size // (PANEL_VECTORS * row_size)
    reach = (step.kernel_height - 1) * step.dilation + 1
    chunk = max(1, min(step.out_height, (most_rows - reach) // step.stride + 1))
    chunks = (step.out_height + chunk - 1) // chunk
    while chunks * panels * step.batch < parts and chunk > 4:
        chunk = (chunk + 1) // 2  # so that there is something for every part
        chunks = (step.out_height + chunk - 1) // chunk
    first, last = share(panels * step.batch * chunks, 1, part, parts)
    for item in range(first, last):
        panel, n, piece = item // (step.batch * chunks), item // chunks % step.batch, item % chunks
        first_out = piece * chunk
        last_out = min(first_out + chunk, step.out_height)
        first_row = max(0, first_out * step.stride - step.pad_top)
        last_row = min(step.height, (last_out - 1) * step.stride - step.pad_top + reach)
        rows = max(0, last_row - first_row)
        between = Map(scratch, rows * row_size)
        if expand.kind == CONV2D:
            convolve_rows(expand, arrays, n, first_row, last_row, panel, between)
        else:
            x = Map(expand.x + (n * step.height + first_row) * row_size, expand.x_plane)
            multiply(expand, arrays, x, between, rows * step.width, panel)
        for plane in range(panel * PANEL_VECTORS, min((panel + 1) * PANEL_VECTORS, planes)):
            image = scratch + (plane - panel * PANEL_VECTORS) * rows * row_size - first_row * row_size
            filter_rows(step, arrays, image, plane, n, first_out, last_out)
