"""Bilinear resizing of feature maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.simd import load, store
from minimobile_kernels.step import Arrays


@compiled
def resize_bilinear(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Interpolate along the rows, then along the columns, in float64, rounded once.

    Defined by reference.resize_bilinear. Shapes: x, out: maps of (N, H, W, C) and (N, H_out, W_out, C).
    """
    arena = arrays.arena
    rows = step.batch * step.out_height
    first, last = share(ceil_div(step.channels, LANES) * rows, 1, part, parts)
    for item in range(first, last):
        plane, row = item // rows, item % rows
        n, i = row // step.out_height, row % step.out_height
        out = step.out + plane * step.out_plane + row * step.out_width * LANES
        image = step.x + plane * step.x_plane + n * step.height * step.width * LANES
        if step.height == 1 and step.width == 1:
            for j in range(step.out_width):
                store(arena, out + j * LANES, load(arena, image))
            continue
        upper, lower, down = interpolation_point(i, step.height, step.out_height, step.align_corners)
        above = image + upper * step.width * LANES
        below = image + lower * step.width * LANES
        for j in range(step.out_width):
            left, right, across = interpolation_point(j, step.width, step.out_width, step.align_corners)
            left *= LANES
            right *= LANES
            for c in range(LANES):
                high = arena[above + left + c] * (1 - across) + arena[above + right + c] * across
                low = arena[below + left + c] * (1 - across) + arena[below + right + c] * across
                arena[out + j * LANES + c] = np.float32(high * (1 - down) + low * down)


@compiled
def interpolation_point(index: int, size: int, out_size: int, align_corners: int) -> tuple[int, int, float]:
    """Return the two neighbours of one output pixel and the weight of the second.

    Defined by reference.interpolation_points.
    """
    if align_corners:
        position = index * ((size - 1) / (out_size - 1) if out_size > 1 else 0.0)
    else:
        position = max((index + 0.5) * (size / out_size) - 0.5, 0.0)
    first = min(int(position), size - 1)
    second = min(first + 1, size - 1)
    return first, second, position - first if second > first else 0.0
