"""Kernels that work element by element on whole maps: residual sum, concatenation, activation, layout of the input."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.elementwise import (
    GELU,
    HARDSWISH,
    LEAKY_RELU,
    SIGMOID,
    SILU,
    gelu,
    hardswish,
    leaky_relu,
    sigmoid,
    silu,
    tanh,
)
from minimobile_kernels.simd import LANES, clamp, load, store
from minimobile_kernels.simd import add as add_vectors
from minimobile_kernels.step import share


@compiled
def add(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Return clamp(x + y). Defined by reference.add. Shapes: x, y, out (N, H, W, out_pixel)."""
    size = step.batch * step.out_height * step.out_width * step.out_pixel
    first, last = share(size, LANES, thread, threads)
    for offset in range(first, last, LANES):
        total = add_vectors(load(x, step.x + offset), load(arena, step.y + offset))
        store(arena, step.out + offset, clamp(total, step.low, step.high))


@compiled
def concatenate(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Stack channels, x's first. Defined by reference.concatenate.

    Shapes: x (P, x_pixel), y (P, y_pixel), out (P, out_pixel) with P = N*H*W pixels.
    """
    first, last = share(step.batch * step.out_height * step.out_width, 1, thread, threads)
    for pixel in range(first, last):
        out = step.out + pixel * step.out_pixel
        for c in range(step.channels):
            arena[out + c] = x[step.x + pixel * step.x_pixel + c]
        for c in range(step.y_channels):
            arena[out + step.channels + c] = arena[step.y + pixel * step.y_pixel + c]
        for c in range(step.channels + step.y_channels, step.out_pixel):
            arena[out + c] = np.float32(0)


@compiled
def activation(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Apply a curve of elementwise.CURVES in float64, rounded once; or, with option < 0, the clamp alone.

    Defined by reference.activation. Shapes: x, out (N, H, W, out_pixel).
    """
    size = step.batch * step.out_height * step.out_width * step.out_pixel
    first, last = share(size, LANES, thread, threads)
    if step.option < 0:
        for offset in range(first, last, LANES):
            store(arena, step.out + offset, clamp(load(x, step.x + offset), step.low, step.high))
        return
    for offset in range(first, last):
        arena[step.out + offset] = np.float32(_curve(step.option, np.float64(x[step.x + offset])))


@compiled
def _curve(code: int, value: float) -> Any:
    if code == LEAKY_RELU:
        return leaky_relu(value)
    if code == SILU:
        return silu(value)
    if code == HARDSWISH:
        return hardswish(value)
    if code == GELU:
        return gelu(value)
    if code == SIGMOID:
        return sigmoid(value)
    return tanh(value)


@compiled
def pack_pixels(step: Any, x: Any, weights: Any, arena: Any, taps: Any, thread: int, threads: int) -> None:
    """Copy an image of any strides to (N, H, W, out_pixel); padding channels become zero."""
    first, last = share(step.batch * step.out_height, 1, thread, threads)
    for row in range(first, last):
        n, i = row // step.out_height, row % step.out_height
        for j in range(step.out_width):
            source = step.x + n * step.x_image + i * step.x_row + j * step.x_pixel
            out = step.out + (row * step.out_width + j) * step.out_pixel
            for c in range(step.channels):
                arena[out + c] = x[source + c * step.x_channel]
            for c in range(step.channels, step.out_pixel):
                arena[out + c] = np.float32(0)
