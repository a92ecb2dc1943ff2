"""Bilinear resizing of feature maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.step import share


@compiled
def resize_bilinear(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Interpolate along the rows, then along the columns, in float64, rounded once.

    Defined by reference.resize_bilinear. Shapes: x (N, H, W, x_pixel), out (N, H_out, W_out, out_pixel).
    """
    first, last = share(step.batch * step.out_height, 1, thread, threads)
    for item in range(first, last):
        n, i = item // step.out_height, item % step.out_height
        upper, lower, down = interpolation_point(i, step.height, step.out_height, step.option)
        above = step.x + n * step.x_image + upper * step.x_row
        below = step.x + n * step.x_image + lower * step.x_row
        for j in range(step.out_width):
            left, right, across = interpolation_point(j, step.width, step.out_width, step.option)
            left *= step.x_pixel
            right *= step.x_pixel
            out = step.out + (item * step.out_width + j) * step.out_pixel
            if step.height == 1 and step.width == 1:
                for c in range(step.out_pixel):
                    arena[out + c] = x[above + left + c]
                continue
            for c in range(step.out_pixel):
                high = x[above + left + c] * (1 - across) + x[above + right + c] * across
                low = x[below + left + c] * (1 - across) + x[below + right + c] * across
                arena[out + c] = np.float32(high * (1 - down) + low * down)


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
