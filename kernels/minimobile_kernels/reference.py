"""The definition of every kernel: the shortest NumPy that is plainly right, for float32 and float64.

Images are (N, H, W, C). In float32 these functions define the exact bits that the fast kernels must give: each output
is the sum over its terms in the order ky, kx, ci, cut into consecutive blocks of 128 terms; a block is a chain of
fused multiply-adds from zero; the block sums are added in order; then the bias, with the channel's factor as one more
fused step where there is one. Taps outside the image are skipped.
In float64 a product and a sum take the place of the fused step. Networks trained for quantisation sum as their training
did, which `block` and `precision` tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels import elementwise
from minimobile_kernels.geometry import Window, taps

Array: TypeAlias = NDArray[Any]

BLOCK = 128
RESAMPLING_BITS = 22  # fractional bits of Pillow's weights for 8-bit pictures


def fma(x: Array, w: Array, accumulator: Array) -> Array:
    """Return x * w + accumulator, rounded once for float32.

    The product of two float32 is exact in float64. Casting its sum to float32 rounds once more, which makes a
    difference only where the sum lies in the middle between two float32: there, and among subnormal numbers, whose
    middles are elsewhere, the sum is rounded to odd, so that the cast rounds the exact value.
    """
    if accumulator.dtype != np.float32:
        return x * w + accumulator
    with np.errstate(all="ignore"):
        product = np.multiply(x, w, dtype=np.float64)
        total = product + accumulator
        may_be_middle = (total.view(np.int64) & (2**29 - 1) == 2**28) | (np.abs(total) < 2.0**-126)
        if may_be_middle.any():
            start = np.broadcast_to(accumulator, total.shape)[may_be_middle]
            total[may_be_middle] = _add_to_odd(product[may_be_middle], start.astype(np.float64))
        return total.astype(np.float32)


def _add_to_odd(x: Array, y: Array) -> Array:
    """Return x + y in float64: where it is inexact, that neighbour of the exact sum of which the last bit is 1.

    The rounding error is found by the two-sum of Knuth (The Art of Computer Programming 2, 4.2.2) and folded in by
    rounding to odd (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
    """
    total = x + y
    part = total - x
    error = (x - (total - part)) + (y - part)
    bits = total.view(np.int64)
    away_from_zero = (error > 0) == (total > 0)
    is_inexact_and_even = ((error > 0) | (error < 0)) & (bits & 1 == 0)
    bits += np.where(is_inexact_and_even, np.where(away_from_zero, 1, -1), 0)
    return total


def conv2d(
    x: Array, weight: Array, bias: Array, window: Window, block: int = BLOCK, factor: Array | None = None
) -> Array:
    """Convolve: out[n,i,j,o] = bias[o] + factor[o] * sum over ky,kx,ci of x[n,y,x,ci] * weight[o,ky,kx,ci].

    Row y = i*stride - top + ky*dilation, and the column likewise. The sum is cut into blocks of `block` terms; the fast
    kernels take multiples of 16, or no fewer than all terms. Without `factor` the bias is added.

    Shapes: x (N, H, W, C_in), weight (C_out, K_h, K_w, C_in), bias, factor (C_out) -> (N, H_out, W_out, C_out).
    """
    terms = (
        (rows, columns, x[:, sources[0], sources[1], ci, None], weight[:, ky, kx, ci])
        for ky, kx, rows, columns, sources in taps(window)
        for ci in range(x.shape[3])
    )
    shape = (x.shape[0], window.out_height, window.out_width, weight.shape[0])
    return _finish(_sum_in_blocks(terms, shape, x.dtype, block), bias, factor)


def depthwise_conv2d(x: Array, weight: Array, bias: Array, window: Window, factor: Array | None = None) -> Array:
    """Convolve each channel with its own filter: a convolution whose sum over ci has one term.

    Shapes: x (N, H, W, C), weight (K_h, K_w, C), bias, factor (C) -> (N, H_out, W_out, C).
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1, equation 3.
    """
    terms = (
        (rows, columns, x[:, sources[0], sources[1], :], weight[ky, kx])
        for ky, kx, rows, columns, sources in taps(window)
    )
    shape = (x.shape[0], window.out_height, window.out_width, x.shape[3])
    return _finish(_sum_in_blocks(terms, shape, x.dtype), bias, factor)


def pointwise_conv2d(x: Array, weight: Array, bias: Array, block: int = BLOCK, factor: Array | None = None) -> Array:
    """Mix the channels of every pixel: out[n,i,j,o] = bias[o] + factor[o] * sum over ci of x[n,i,j,ci] * weight[o,ci].

    The sum is cut into blocks of `block` terms, as in `conv2d`.

    Shapes: x (N, H, W, C_in), weight (C_out, C_in), bias, factor (C_out) -> (N, H, W, C_out).
    Source: Howard et al., MobileNets (arXiv 1704.04861), section 3.1.
    """
    everywhere = slice(None)
    terms = ((everywhere, everywhere, x[..., ci, None], weight[:, ci]) for ci in range(x.shape[3]))
    return _finish(_sum_in_blocks(terms, (*x.shape[:3], weight.shape[0]), x.dtype, block), bias, factor)


def _sum_in_blocks(
    terms: Iterable[tuple[slice, slice, Array, Array]], shape: tuple[int, ...], dtype: np.dtype[Any], size: int = BLOCK
) -> Array:
    total: Array | None = None
    block = np.zeros(shape, dtype)
    for index, (rows, columns, x, w) in enumerate(terms):
        if index and index % size == 0:
            total = block if total is None else total + block
            block = np.zeros(shape, dtype)
        block[:, rows, columns] = fma(x, w, block[:, rows, columns])
    return block if total is None else total + block


def _finish(total: Array, bias: Array, factor: Array | None) -> Array:
    """Return bias + factor * total, rounded once. Shapes: total (N, H, W, C), bias and factor (C)."""
    return total + bias if factor is None else fma(total, factor, bias)


def batch_norm(x: Array, weight: Array, bias: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """Normalise per channel, (x - mean) / sqrt(variance + epsilon) * weight + bias, in float64, rounded once.

    Shapes: x (N, H, W, C), all others (C). Source: Ioffe and Szegedy (arXiv 1502.03167), algorithm 2.
    """
    scale = weight.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    return ((x.astype(np.float64) - mean) * scale + bias).astype(x.dtype)


def activation(x: Array, function: str) -> Array:
    """Apply an activation function to every element, in float64, rounded once; see `elementwise.py`. Any shape."""
    return elementwise.activate(x, function)


def add(x: Array, y: Array) -> Array:
    """Return x + y: the residual connection. Shapes: both (N, H, W, C)."""
    with np.errstate(all="ignore"):
        return x + y


def average_pool2d(x: Array, window: Window, precision: str = "float64") -> Array:
    """Average over windows that lie inside the image (no padding): summed in the order ky, kx in float64, rounded once.

    With `precision` "float32" the sum of float32 is one, rounded at every term, and so is its division.

    Shapes: x (N, H, W, C) -> (N, H_out, W_out, C).
    """
    shape = (x.shape[0], window.out_height, window.out_width, x.shape[3])
    total = np.zeros(shape, np.promote_types(x.dtype, precision))
    for *_, (rows, columns) in taps(window):
        total += x[:, rows, columns]
    return (total / (window.kernel_height * window.kernel_width)).astype(x.dtype)


def concatenate(x: Array, y: Array) -> Array:
    """Stack channels: x's first, then y's. Shapes: (N, H, W, C_x), (N, H, W, C_y) -> (N, H, W, C_x + C_y)."""
    return np.concatenate([x, y], axis=3)


def resize_bilinear(x: Array, height: int, width: int, align_corners: bool) -> Array:
    """Resize by linear interpolation along the rows, then along the columns, in float64, rounded once.

    Output pixel j reads position j * (W-1)/(width-1) with `align_corners`, else (j + 0.5) * W/width - 0.5, kept inside
    the image. A single pixel is repeated. Source: `torch.nn.functional.interpolate`, mode "bilinear".

    Shapes: x (N, H, W, C) -> (N, height, width, C).
    """
    if x.shape[1:3] == (1, 1):
        return np.tile(x, (1, height, width, 1))
    upper, lower, down = interpolation_points(x.shape[1], height, align_corners)
    left, right, across = interpolation_points(x.shape[2], width, align_corners)
    rows = x.astype(np.float64)
    rows = blend(rows[:, :, left], rows[:, :, right], across[:, None])  # (N, H, width, C)
    return blend(rows[:, upper], rows[:, lower], down[:, None, None]).astype(x.dtype)


def blend(first: Array, second: Array, weight: Array) -> Array:
    """Return first * (1 - weight) + second * weight: what lies between neighbours."""
    result: Array = first * (1 - weight)
    result += second * weight
    return result


def quantized_multiplier(scale: float) -> tuple[int, int]:
    """Return (multiplier, shift) with scale = multiplier / 2**31 * 2**shift and 2**30 <= multiplier < 2**31.

    A scale below 2**-32 is (0, 0). Source: LiteRT, `QuantizeMultiplier`; Jacob et al. (arXiv 1712.05877), section 2.2.

    >>> quantized_multiplier(0.25)
    (1073741824, -1)
    """
    fraction, shift = math.frexp(scale)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (multiplier, shift) if shift >= -31 else (0, 0)


def requantize(total: Array, multiplier: Array, shift: Array, bytes_of: str = "litert") -> Array:
    """Multiply int32 sums by multiplier / 2**31 * 2**shift, in integers alone: to the steps of the output's scale.

    "litert" rounds twice, as LiteRT's kernels do: high = floor(total * multiplier / 2**31 + 1/2), and then high /
    2**-shift to the nearest, halves away from zero. "litert-single-rounding" rounds once, halves up, as LiteRT built
    with TFLITE_SINGLE_ROUNDING does. There is no other rule in integers: ValueError.

    Shapes: total (..., C), multiplier and shift (C) or of one element -> (..., C). Source: Jacob et al. (arXiv
    1712.05877), section 2.2; LiteRT, `MultiplyByQuantizedMultiplier`.

    >>> requantize(np.array([-6, -5, 5, 6]), *map(np.array, quantized_multiplier(0.25)))  # 5/4: to 3/2, to 2
    array([-2, -1,  2,  2])
    """
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    product = (total.astype(np.int64) << left) * multiplier
    result: Array
    if bytes_of == "litert-single-rounding":
        result = (product + (1 << (30 + right))) >> (31 + right)
        return result
    if bytes_of != "litert":
        raise ValueError(f"bytes_of: expected 'litert' or 'litert-single-rounding', got {bytes_of!r}")
    high = (product + (1 << 30)) >> 31
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0)
    result = (high + half - ((high < 0) & (right > 0))) >> right
    return result


class Grid(NamedTuple):
    """The numbers to which `fake_quantize` rounds: low, low + step, ..., high; `zero` steps above low lies 0."""

    low: np.float32
    high: np.float32
    step: np.float32
    zero: np.float32


def nudge_range(minimum: float, maximum: float, num_bits: int = 8, narrow_range: bool = False) -> Grid:
    """Return the grid of 2**num_bits numbers (one less if narrow) from about `minimum` to about `maximum`.

    Both are moved by less than a step, so that 0 is one of the numbers; they must have 0 between them, and be finite.
    All in float32. A range of one point, 0, has a grid of one point. Source: TensorFlow,
    `core/kernels/fake_quant_ops_functor.h`, `Nudge`.

    >>> print(*nudge_range(-0.1, 2.0, num_bits=2))  # 0 is a number of the grid -0.1, 0.6, 1.3, 2.0 moved by 0.1
    0.0 2.1 0.7 0.0
    """
    least, most = np.float32(narrow_range), np.float32(2**num_bits - 1)
    low, high = np.float32(minimum), np.float32(maximum)
    if low == high == 0:
        return Grid(low, high, np.float32(1), np.float32(0))
    step = (high - low) / (most - least)
    zero = np.float32(np.floor(np.float64(np.clip(least - low / step, least, most)) + 0.5))  # halves away from zero
    return Grid((least - zero) * step, (most - zero) * step, step, zero - least)


def fake_quantize(x: Array, grid: Grid) -> Array:
    """Round every element to the nearest number of a grid, halves up: floor((x - low) / step - zero + 1/2) * step.

    x is clamped to low..high first. In float32 these are TensorFlow's own bits (2.21; its older versions multiply by
    1 / step, and add low instead of taking off zero). NaN stays NaN. Any shape. Source: TensorFlow,
    `FakeQuantWithMinMaxVars`.

    >>> print(fake_quantize(np.array([-1, 0.3, 0.4, 9], np.float32), nudge_range(-0.1, 2.0, num_bits=2)))
    [0.  0.  0.7 2.1]
    """
    low, high, step, zero = (x.dtype.type(value) for value in grid)
    clamped = np.where(x < low, low, np.where(x > high, high, x))
    result: Array = np.floor((clamped - low) / step - zero + x.dtype.type(0.5)) * step
    return result


def interpolation_points(
    size: int, out_size: int, align_corners: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return, for each of `out_size` pixels, its two neighbours among `size` and the weight of the second.

    >>> first, second, weight = interpolation_points(2, 4, False)
    >>> first.tolist(), second.tolist(), weight.tolist()
    ([0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.0])
    """
    index = np.arange(out_size, dtype=np.float64)
    if align_corners:
        position = index * ((size - 1) / (out_size - 1) if out_size > 1 else 0.0)
    else:
        position = np.maximum((index + 0.5) * (size / out_size) - 0.5, 0.0)
    first = np.minimum(position.astype(np.int64), size - 1)
    second = np.minimum(first + 1, size - 1)
    return first, second, np.where(second > first, position - first, 0.0)


def resample_bytes(x: NDArray[np.uint8], starts: NDArray[np.int64], weights: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Weigh, for each output i, the inputs from starts[i] on; round halves up, and clip to bytes.

    Shapes: x (n, ...), starts (m), weights (m, taps) with `RESAMPLING_BITS` fractional bits, result (m, ...). Source:
    Pillow, `src/libImaging/Resample.c`.
    """
    out = np.empty((len(starts), *x.shape[1:]), np.uint8)
    for i, start in enumerate(starts):
        total = np.tensordot(weights[i].astype(np.int64), x[start : start + weights.shape[1]].astype(np.int64), 1)
        out[i] = np.clip((total + (1 << (RESAMPLING_BITS - 1))) >> RESAMPLING_BITS, 0, 255)
    return out
