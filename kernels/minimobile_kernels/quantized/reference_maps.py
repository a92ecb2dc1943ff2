"""The definitions of the other quantised kernels: into and out of bytes, moving them, and resizing.

As in `reference.py`, a byte q stands for scale * (q - zero), images are (N, H, W, C), and the result has the
same bytes as LiteRT's reference kernels (`tflite/kernels/internal/reference`, the file named with each).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minimobile_kernels.quantized.reference import ONNX_RUNTIME, Range, Scaling, rescale, written_zero
from minimobile_kernels.reference import Array

RESIZE_BITS = 10  # of a position's fraction, where signed bytes are resized


class Affine(NamedTuple):
    """What bytes stand for: scale * (byte - zero)."""

    scale: np.float32
    zero: int


def quantize(x: Array, to: Affine, dtype: DTypeLike, bytes_of: str = "litert") -> Array:
    """Turn numbers into bytes: zero + x / scale, halves away from zero, clamped (`quantize.h`, AffineQuantize).

    ONNX Runtime takes halves to even, as the operator QuantizeLinear says.

    Shapes: x of any shape in float32, without NaN -> the same in uint8 or int8.
    """
    limits = np.iinfo(np.dtype(dtype))
    with np.errstate(over="ignore"):
        steps = np.clip(x.astype(np.float32) / np.float32(to.scale), np.float32(-(2.0**30)), np.float32(2.0**30))
    whole = np.rint(steps)
    if bytes_of not in ONNX_RUNTIME:
        whole = np.trunc(steps)  # what is left is exact
        whole += np.copysign(np.abs(steps - whole) >= np.float32(0.5), steps)
    result: Array = np.clip(whole.astype(np.int64) + to.zero, limits.min, limits.max).astype(dtype)
    return result


def dequantize(x: Array, by: Affine) -> Array:
    """Return the numbers that bytes stand for, in float32 (`dequantize.h`); bytes less a byte are exact there."""
    if x.dtype.itemsize > 1:
        result: Array = np.float32(by.scale) * (x.astype(np.int64) - by.zero).astype(np.float32)
        return result
    numbers: Array = np.subtract(x, by.zero, dtype=np.float32)
    numbers *= np.float32(by.scale)
    return numbers


def requantize_bytes(x: Array, zero: int, by: Scaling, to: Range, dtype: DTypeLike, bytes_of: str = "litert") -> Array:
    """Bring bytes to another scale, zero point or type (`requantize.h`).

    XNNPACK multiplies by the factor in whole 256ths, and rounds halves up (`qu8-vcvt`).
    """
    steps = x.astype(np.int64) - zero
    if bytes_of == "xnnpack":
        factor = int(np.rint(np.float32(256) * by.scale[0]))
        result: Array = np.clip(((steps * factor + 128) >> 8) + to.zero, to.low, to.high).astype(dtype)
        return result
    return rescale(steps, by, to, bytes_of).astype(dtype)


def pad(x: Array, padding: Sequence[tuple[int, int]], zero: int) -> Array:
    """Put bytes that stand for 0 around x: a pair (before, after) for each axis (`pad.h`)."""
    return np.pad(x, padding, constant_values=zero)


def concatenate(arrays: Sequence[Array], by: Sequence[Affine], to: Affine, axis: int) -> Array:
    """Join maps along an axis; those of another scale are brought to the output's in float32 (`concatenation.h`)."""
    parts = []
    for x, own in zip(arrays, by, strict=True):
        if own == to:
            parts.append(x)
            continue
        parts.append(np.take(_rescaled_bytes(own, to, x.dtype), np.ascontiguousarray(x).view(np.uint8)))
    return np.concatenate(parts, axis)


@functools.lru_cache(maxsize=64)
def _rescaled_bytes(own: Affine, to: Affine, dtype: np.dtype[Any]) -> Array:
    """Return what becomes of every byte of another scale, in the order of bytes as unsigned ones."""
    limits = np.iinfo(dtype)
    every = np.arange(256).astype(np.uint8).view(dtype)
    factor = np.float32(own.scale) * (np.float32(1) / np.float32(to.scale))
    steps = (every.astype(np.float32) * factor + np.float32(-own.zero) * factor).astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(steps) + 0.5), steps).astype(np.int64)
    return np.clip(rounded + to.zero, limits.min, limits.max).astype(dtype)


def mean(x: Array, zero: int, axes: Sequence[int], by: Scaling, to: Range, bytes_of: str = "litert") -> Array:
    """Average over axes, which stay as axes of size 1 (`reduce.h`)."""
    total = (x.astype(np.int64) - zero).sum(tuple(axes), keepdims=True)
    return rescale(total, mean_scaling(by, x.size // total.size), to, bytes_of).astype(x.dtype)


def mean_scaling(by: Scaling, count: int) -> Scaling:
    """Return a scaling that divides by `count` as well: the multiplier takes it in, with as many bits as it can."""
    multiplier, shift = int(by.multiplier[0]), int(by.shift[0])
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    return Scaling(np.array([(multiplier << bits) // count]), np.array([shift - bits]), by.scale / np.float32(count))


def argmax(x: Array, axis: int, dtype: DTypeLike) -> Array:
    """Return the index of the largest byte along an axis, the first of equals (`arg_min_max.h`)."""
    result: Array = x.argmax(axis).astype(dtype)
    return result


def resize_bilinear(
    x: Array, height: int, width: int, align_corners: bool, half_pixel_centers: bool, bytes_of: str = "litert"
) -> Array:  # fmt: skip
    """Resize bilinearly: uint8 with weights in float32, int8 with weights of 10 bits (`resize_bilinear.h`).

    ONNX Runtime resizes the numbers that a file writes bytes as, from 0 or from -128 on, and cuts off what is behind
    the point (1.31 on x86-64, `UpsampleBilinear`). Shapes: x (N, H, W, C) -> (N, height, width, C).
    """
    rows = resize_points(x.shape[1], height, x.dtype, align_corners, half_pixel_centers, bytes_of)
    columns = resize_points(x.shape[2], width, x.dtype, align_corners, half_pixel_centers, bytes_of)
    if bytes_of in ONNX_RUNTIME:
        moved = written_zero(bytes_of) - (128 if x.dtype == np.int8 else 0)
        return (_resize_numbers(x.astype(np.int64) - moved, rows, columns) + moved).astype(x.dtype)
    return _resize_unsigned(x, rows, columns) if x.dtype == np.uint8 else _resize_signed(x, rows, columns)


class Points(NamedTuple):
    """For every pixel of one axis: its neighbours, and the weights of both."""

    first: Array
    second: Array
    first_weight: Array
    second_weight: Array


def resize_points(
    size: int, out_size: int, dtype: DTypeLike, align_corners: bool, half_pixel_centers: bool, bytes_of: str = "litert"
) -> Points:  # fmt: skip
    """Return the neighbours and weights of one axis: in float32 for uint8, in whole 1024ths for int8.

    ONNX Runtime's are those of uint8 but for roundings, and for pixels beyond the last: halves of the one neighbour.
    """
    if bytes_of in ONNX_RUNTIME:
        return _clamped_points(size, out_size, align_corners, half_pixel_centers)
    find = _real_points if np.dtype(dtype) == np.uint8 else _whole_points
    return find(size, out_size, align_corners, half_pixel_centers)


def _real_points(size: int, out_size: int, align_corners: bool, half_pixel_centers: bool) -> Points:
    scale = np.float32(size) / np.float32(out_size)
    if align_corners and out_size > 1:
        scale = np.float32(size - 1) / np.float32(out_size - 1)
    index = np.arange(out_size, dtype=np.float32)
    half = np.float32(0.5)
    position = (index + half) * scale - half if half_pixel_centers else index * scale
    first = np.clip(np.floor(position).astype(np.int64), 0, size - 1)
    second = np.minimum(np.ceil(position).astype(np.int64), size - 1)
    weight = position - first.astype(np.float32)
    return Points(first, second, np.float32(1) - weight, weight)


def _resize_unsigned(x: Array, rows: Points, columns: Points) -> Array:
    """Sum value * (weight of its row) * (weight of its column), in the order of columns, then rows, and truncate."""
    channels = x.shape[3]
    out = np.empty((x.shape[0], len(rows.first), len(columns.first), channels), x.dtype)
    for image, result in zip(x.astype(np.float32), out, strict=True):
        sides = [(image[:, points], np.repeat(weights[:, None], channels, 1)) for points, weights in
                 ((columns.first, columns.first_weight), (columns.second, columns.second_weight))]  # fmt: skip
        for i in range(len(rows.first)):  # a row at a time, which stays in cache
            above, below = (rows.first[i], rows.first_weight[i]), (rows.second[i], rows.second_weight[i])
            terms = [side[row] * down * across for side, across in sides for row, down in (above, below)]
            result[i] = terms[0] + terms[1] + terms[2] + terms[3] + np.float32(0.5)
    return out


def _clamped_points(size: int, out_size: int, align_corners: bool, half_pixel_centers: bool) -> Points:
    index, half, scale = np.arange(out_size, dtype=np.float32), np.float32(0.5), np.float32(out_size) / np.float32(size)
    position = (index + half) / scale - half if half_pixel_centers else index / scale
    if align_corners:
        position = index * np.float32(size - 1) / np.float32(max(out_size - 1, 1))
    position = np.clip(position, np.float32(0), np.float32(size - 1))
    first = position.astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    weights = (np.where(first == second, half, np.abs(position - at.astype(np.float32))) for at in (second, first))
    return Points(first, second, *weights)


def _resize_numbers(x: Array, rows: Points, columns: Points) -> Array:
    """Sum value * (weight of its column * weight of its row), in the order of rows, then columns, and truncate."""
    out = np.empty((x.shape[0], len(rows.first), len(columns.first), x.shape[3]), np.int64)
    numbers = x.astype(np.float32)
    sides = ((columns.first, columns.first_weight), (columns.second, columns.second_weight))
    for i in range(len(rows.first)):
        levels = ((rows.first[i], rows.first_weight[i]), (rows.second[i], rows.second_weight[i]))
        first, *rest = (
            (across * down)[:, None] * numbers[:, row][:, at] for row, down in levels for at, across in sides
        )
        out[:, i] = functools.reduce(np.add, rest, first)
    return out


def _whole_points(size: int, out_size: int, align_corners: bool, half_pixel_centers: bool) -> Points:
    one = 1 << RESIZE_BITS
    scale = (one * size + out_size // 2) // out_size
    if align_corners and out_size > 1:
        scale = (one * (size - 1) + (out_size - 1) // 2) // (out_size - 1)
    position = np.arange(out_size) * scale
    if half_pixel_centers:
        position = position + scale // 2 - one // 2
    first = np.clip(_toward_zero(position, one), 0, size - 1)
    second = np.minimum(_toward_zero(position + one - 1, one), size - 1)
    weight = position - first * one
    return Points(first, second, one - weight, weight)


def _resize_signed(x: Array, rows: Points, columns: Points) -> Array:
    out = np.empty((x.shape[0], len(rows.first), len(columns.first), x.shape[3]), x.dtype)
    wide = x.astype(np.int32)
    left, right = wide[:, :, columns.first], wide[:, :, columns.second]
    across = left * columns.first_weight[:, None] + right * columns.second_weight[:, None]  # (N, H, width, C)
    half = 1 << (2 * RESIZE_BITS - 1)
    for i in range(len(rows.first)):
        total = across[:, rows.first[i]] * rows.first_weight[i] + across[:, rows.second[i]] * rows.second_weight[i]
        out[:, i] = _toward_zero(np.where(total > 0, total + half, total - half), 2 * half).astype(x.dtype)
    return out


def _toward_zero(value: Array, divisor: int) -> Array:
    """Divide as C does."""
    result: Array = np.where(value >= 0, value // divisor, -(-value // divisor))
    return result
