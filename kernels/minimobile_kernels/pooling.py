"""Average pooling over windows inside the image; the global pool is a window as large as the map."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.simd import add, broadcast, divide, load, store, widen
from minimobile_kernels.step import Arrays


@compiled
def average_pool2d(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Average: out[n,i,j,c] = sum over ky,kx of x[n, i*s+ky, j*s+kx, c] / (K_h*K_w), summed in float64, rounded once.

    With `step.is_single` in float32, rounded at every term. Defined by reference.average_pool2d.

    Shapes: x, out: maps of (N, H, W, C) and (N, H_out, W_out, C).
    """
    arena = arrays.arena
    windows = step.out_height * step.out_width
    pixels = step.batch * windows
    first, last = share(ceil_div(step.channels, LANES) * pixels, 1, part, parts)
    count = float(step.kernel_height * step.kernel_width)
    for item in range(first, last):
        plane, pixel = item // pixels, item % pixels
        n, i, j = pixel // windows, pixel % windows // step.out_width, pixel % step.out_width
        start = (n * step.height + i * step.stride) * step.width + j * step.stride
        total = widen(broadcast(np.float32(0)))
        single = broadcast(np.float32(0))
        for ky in range(step.kernel_height):
            row = step.x + plane * step.x_plane + (start + ky * step.width) * LANES
            for kx in range(step.kernel_width):
                term = load(arena, row + kx * LANES)
                if step.is_single:
                    single = add(single, term)
                else:
                    total = add(total, widen(term))
        if step.is_single:
            total = widen(single)  # a quotient in float64 rounds to that in float32: it has more than twice the bits
        store(arena, step.out + plane * step.out_plane + pixel * LANES, divide(total, count))
