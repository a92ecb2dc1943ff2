"""Average pooling over windows inside the image; the global pool is a window as large as the map."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.simd import LANES, add, broadcast, divide, load, store, widen
from minimobile_kernels.step import share


@compiled
def average_pool2d(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Average: out[n,i,j,c] = sum over ky,kx of x[n, i*s+ky, j*s+kx, c] / (K_h*K_w), summed in float64, rounded once.

    Defined by reference.average_pool2d. Shapes: x (N, H, W, x_pixel), out (N, H_out, W_out, out_pixel).
    """
    blocks = step.out_pixel // LANES
    windows = step.out_height * step.out_width
    first, last = share(step.batch * windows * blocks, 1, thread, threads)
    count = float(step.kernel_height * step.kernel_width)
    for item in range(first, last):
        pixel, block = item // blocks, item % blocks
        n, i, j = pixel // windows, pixel % windows // step.out_width, pixel % step.out_width
        source = step.x + n * step.x_image + i * step.stride * step.x_row + j * step.stride * step.x_pixel
        total = widen(broadcast(np.float32(0)))
        for ky in range(step.kernel_height):
            row = source + ky * step.x_row + block * LANES
            for kx in range(step.kernel_width):
                total = add(total, widen(load(x, row + kx * step.x_pixel)))
        store(arena, step.out + pixel * step.out_pixel + block * LANES, divide(total, count))
