"""Kernels that work element by element on whole maps: residual sum, concatenation, activation, layout of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from minimobile_kernels._jit import compiled
from minimobile_kernels.elementwise import (
    GELU,
    HARDSWISH,
    LEAKY_RELU,
    SIGMOID,
    SILU,
    Values,
    choose,
    exponential,
    gelu,
    hardswish,
    leaky_relu,
    sigmoid,
    silu,
    tanh,
)
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.simd import add as add_vectors
from minimobile_kernels.simd import clamp, load, store
from minimobile_kernels.step import Arrays

for _function in (exponential, sigmoid, tanh, silu, hardswish, leaky_relu, gelu):
    register_jitable(_function)


@overload(choose)  # type: ignore[untyped-decorator]
def _choose_scalar(condition: Values, yes: Values, no: Values) -> Values:
    def branch(condition: Values, yes: Values, no: Values) -> Values:
        return yes if condition else no

    return branch


@compiled
def add(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Return clamp(x + y). Defined by reference.add. Shapes: x, y, out: maps of (N, H, W, C)."""
    arena = arrays.arena
    first, last = share(ceil_div(step.channels, LANES) * step.out_plane, LANES, part, parts)
    for offset in range(first, last, LANES):
        total = add_vectors(load(arena, step.x + offset), load(arena, step.y + offset))
        store(arena, step.out + offset, clamp(total, step.low, step.high))


@compiled
def concatenate(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Stack channels, x's first. Defined by reference.concatenate.

    Shapes: x, y, out: maps of (N, H, W, C_x), (N, H, W, C_y), (N, H, W, C_x + C_y).
    """
    arena = arrays.arena
    pixels = step.batch * step.out_height * step.out_width
    first, last = share(pixels, 16, part, parts)
    for c in range(ceil_div(step.out_channels, LANES) * LANES):
        out = step.out + c // LANES * step.out_plane + c % LANES
        if c < step.channels:
            source = step.x + c // LANES * step.x_plane + c % LANES
            for pixel in range(first, last):
                arena[out + pixel * LANES] = arena[source + pixel * LANES]
        elif c < step.channels + step.y_channels:
            channel = c - step.channels
            source = step.y + channel // LANES * step.y_plane + channel % LANES
            for pixel in range(first, last):
                arena[out + pixel * LANES] = arena[source + pixel * LANES]
        else:
            for pixel in range(first, last):
                arena[out + pixel * LANES] = np.float32(0)


@compiled
def activation(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Apply a curve of elementwise.CURVES in float64, rounded once; or, with a curve < 0, the clamp alone.

    Defined by reference.activation. Shapes: x, out: maps of (N, H, W, C).
    """
    arena = arrays.arena
    first, last = share(ceil_div(step.channels, LANES) * step.out_plane, LANES, part, parts)
    if step.curve < 0:
        for offset in range(first, last, LANES):
            store(arena, step.out + offset, clamp(load(arena, step.x + offset), step.low, step.high))
        return
    for offset in range(first, last):
        arena[step.out + offset] = np.float32(_curve(step.curve, np.float64(arena[step.x + offset])))


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
def fake_quantize(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Round to the grid low, low + scale, ..., high. Defined by reference.fake_quantize.

    Shapes: x, out: maps of (N, H, W, C).
    """
    arena = arrays.arena
    first, last = share(ceil_div(step.channels, LANES) * step.out_plane, LANES, part, parts)
    low, high, scale, zero, half = step.low, step.high, step.scale, step.zero, np.float32(0.5)
    for offset in range(first, last):
        value = arena[step.x + offset]
        clamped = low if value < low else high if value > high else value
        arena[step.out + offset] = np.floor((clamped - low) / scale - zero + half) * scale


@compiled
def pack_pixels(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Copy the caller's image (N, H, W, C), of any strides, to a map; channels beyond C become zero."""
    arena, pixels = arrays.arena, arrays.pixels
    first, last = share(step.batch * step.out_height, 1, part, parts)
    for c in range(ceil_div(step.channels, LANES) * LANES):
        for row in range(first, last):
            n, i = row // step.out_height, row % step.out_height
            source = step.x + n * step.x_image + i * step.x_row + c * step.x_channel
            out = step.out + c // LANES * step.out_plane + row * step.out_width * LANES + c % LANES
            for j in range(step.out_width):
                arena[out + j * LANES] = pixels[source + j * step.x_pixel] if c < step.channels else np.float32(0)
