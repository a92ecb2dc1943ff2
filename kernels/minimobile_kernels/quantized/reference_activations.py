"""The definitions of softmax and the logistic function on bytes: LiteRT's reference kernels'; ONNX Runtime's softmax.

Fixed-point numbers are integers that stand for value / 2**fraction_bits; Q5.26 has 5 bits before the point, 26 behind.
Source: LiteRT, `tflite/kernels/internal/reference/softmax.h` and `activations.cc`; gemmlowp, `fixedpoint/fixedpoint.h`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from minimobile_kernels import elementwise
from minimobile_kernels.reference import Array, quantized_multiplier

DIFFERENCE_BITS = 26  # the fraction of logit - largest logit: Q5.26
SUM_BITS = 12  # before the point of a sum of exponentials: Q12.19
_RESERVE = 5.0  # how far, as an exponent of e, a sum of exponentials in float32 stays below the largest number
_LARGEST = 2**31 - 1  # one, in Q0.31
# exp(-2**k) in Q0.31, for the bits of weight 2**k of a difference.
_POWERS = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}
_EXP_MINUS_EIGHTH, _THIRD = 1895147668, 715827883  # in Q0.31
_48_OVER_17, _32_OVER_17 = 1515870810, 1010580540  # in Q2.29


def softmax(x: Array, scale: float, beta: float) -> Array:
    """Return exp(beta * x) / sum over the last axis, in steps of 1/256 above the type's smallest byte.

    What lies so far below the largest that Q5.26 cannot hold the difference counts as 0.

    Shapes: x (..., C) in uint8 or int8, with values scale * x -> (..., C) of the same type.
    """
    smallest = int(np.iinfo(x.dtype).min)
    power, addend = exponentials(scale, beta)
    result = np.empty(x.shape, x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        below = int(x[row].max()) - x[row].astype(np.int64)
        total = int(addend[below].sum())  # Q12.19
        digits = total.bit_length()  # 2**(digits - 1) <= total < 2**digits
        over_one = digits - (31 - SUM_BITS) - 1
        share = times(power[below], reciprocal((total << (32 - digits)) - (1 << 31)))
        result[row] = np.minimum(rounded_shift(share, over_one + 31 - 8), 255) + smallest
    return result


def softmax_of_floats(x: Array, scale: float) -> Array:
    """Return exp(x) / sum over the last axis in float32, in steps of 1/256 above the type's smallest byte.

    The exponentials of the 256 differences to the largest are float32, times what lets a sum of so many of them just
    not overflow; the sum goes from first to last; halves go to the even step. Source: ONNX Runtime,
    `contrib_ops/cpu/quantization/qlinear_softmax.cc`.

    Shapes: x (..., C) in uint8 or int8, with values scale * x -> (..., C) of the same type.

    >>> softmax_of_floats(np.array([[3, 3, 1]], np.uint8), 0.5)
    array([[108, 108,  40]], dtype=uint8)
    """
    limits = np.iinfo(x.dtype)
    below = x.max(-1, keepdims=True).astype(np.int64) - x
    powers = exponentials_of_floats(scale, x.shape[-1])[below]
    total = np.add.accumulate(powers, -1, np.float32)[..., -1:]
    # A single channel overflows, and is the largest byte; ONNX Runtime has what a cast of infinity gives.
    with np.errstate(over="ignore"):
        shares = np.rint(powers * np.float32(256) / total)
    result: Array = np.minimum(shares + limits.min, limits.max).astype(x.dtype)
    return result


@functools.lru_cache(maxsize=16)
def exponentials_of_floats(scale: float, count: int) -> Array:
    """Return exp(-scale * d) for the differences d of 0..255, times what leaves room for a sum of `count`; (256)."""
    room = math.log(np.finfo(np.float32).max / np.float32(count)) - _RESERVE
    steps = np.float64(np.float32(scale))
    powers: Array = elementwise.exponential((-np.arange(256) + room / steps) * steps).astype(np.float32)
    return powers


@functools.lru_cache(maxsize=16)
def exponentials(scale: float, beta: float) -> tuple[Array, Array]:
    """Return exp(-beta * scale * d) for the differences d of 0..255 in Q0.31, and in Q12.19 for the sum; (256) each."""
    multiplier, shift = quantized_multiplier(min(beta * scale * 2**DIFFERENCE_BITS, 2**31 - 1.0))
    difference = -np.arange(256)
    counts = difference >= -math.floor(31 * 2.0**DIFFERENCE_BITS / 2.0**shift)
    power = exponential(times(np.where(counts, difference, 0) << shift, multiplier))
    return np.where(counts, power, 0), np.where(counts, rounded_shift(power, SUM_BITS), 0)


def logistic(x: Array, scale: float, zero: int) -> Array:
    """Return 1 / (1 + exp(-scale * (x - zero))) in steps of 1/256 above the type's smallest byte, halves up.

    Shapes: x of any shape in uint8 or int8 -> the same.
    """
    limits = np.iinfo(x.dtype)
    every = np.arange(256).astype(np.uint8).view(x.dtype).astype(np.int64)  # in the order of the bytes as unsigned ones
    real = (np.float32(scale) * (every - zero).astype(np.float32)).astype(np.float64)
    with np.errstate(over="ignore"):
        power = elementwise.exponential(-real).astype(np.float32)
    value = np.float32(1) / (np.float32(1) + power)
    steps = np.floor(value.astype(np.float64) * 256 + 0.5).astype(np.int64) + int(limits.min)
    table = np.clip(steps, limits.min, limits.max).astype(x.dtype)
    result: Array = np.take(table, np.ascontiguousarray(x).view(np.uint8))
    return result


def times(left: Any, right: Any) -> Any:
    """Multiply fixed-point numbers, arrays or not, one of them Q0.31: left * right / 2**31, rounded, halves up."""
    return (left * right + (1 << 30)) >> 31


def rounded_shift(value: Any, bits: int) -> Any:
    """Divide by 2**bits, to the nearest, halves away from zero."""
    return (value + (1 << (bits - 1)) - (value < 0)) >> bits if bits > 0 else value


def exponential(x: Array) -> Array:
    """Return exp(x) in Q0.31 for x <= 0 in Q5.26.

    x is a part in [-1/4, 0), whose exponential is a polynomial, minus a multiple of 1/4, of which every bit multiplies
    by a known power.
    """
    quarter = 2 ** (DIFFERENCE_BITS - 2)
    part = (x & (quarter - 1)) - quarter
    rest = part - x
    result = _exponential_near_zero(part << 5)
    for exponent, power in _POWERS.items():
        has_bit = rest & (1 << (DIFFERENCE_BITS + exponent)) != 0
        result = np.where(has_bit, times(result, power), result)
    return np.where(x == 0, _LARGEST, result)


def _exponential_near_zero(x: Array) -> Array:
    """Return exp(x) for x in [-1/4, 0), both Q0.31: exp(-1/8) times the series of exp(x + 1/8) to the fourth power."""
    x = x + (1 << 28)
    square = times(x, x)
    cube, fourth = times(square, x), times(square, square)
    tail = rounded_shift(times(rounded_shift(fourth, 2) + cube, _THIRD) + square, 1)  # x^2/2 + x^3/6 + x^4/24
    result: Array = _EXP_MINUS_EIGHTH + times(x + tail, _EXP_MINUS_EIGHTH)
    return result


def reciprocal(x: int) -> int:
    """Return 1 / (1 + x) for x in [0, 1), both Q0.31, by three steps of Newton's from 48/17 - 32/17 * (1 + x) / 2."""
    half = (x + _LARGEST + 1) >> 1  # (1 + x) / 2
    estimate = _48_OVER_17 + times(half, -_32_OVER_17)  # Q2.29
    for _ in range(3):
        error = (1 << 29) - times(half, estimate)
        estimate += times(estimate, error) << 2
    return min(int(estimate) << 1, _LARGEST)
