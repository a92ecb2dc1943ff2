"""The definition of every quantised kernel: integers in, integers out, the same bytes as LiteRT's reference kernels.

A byte q stands for the real number scale * (q - zero). A product of two such numbers has the scale s_x * s_w, and so
has a sum of products; to bring it to the output's scale it is multiplied by s_x * s_w / s_out: `rescale`. Images are
(N, H, W, C) in uint8 or int8; what lies outside an image counts as real zero. Source: Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (arXiv 1712.05877), section 2; LiteRT,
`tflite/kernels/internal/reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minimobile_kernels.geometry import Window, taps
from minimobile_kernels.reference import Array, fma, quantized_multiplier, requantize

ONNX_RUNTIME = ("onnxruntime", "onnxruntime-uint8")  # in a file of int8, of uint8: its sums of maps depend on that
BY_FLOATS = ("xnnpack", *ONNX_RUNTIME)  # sums of products times a factor of float32


class Scaling(NamedTuple):
    """How sums come to the output's scale: per channel, or once for all, as arrays of one dimension.

    `scale` is the real factor in float32, `multiplier` and `shift` are what `quantized_multiplier` makes of it.
    """

    multiplier: Array
    shift: Array
    scale: Array


class Range(NamedTuple):
    """The output's zero point, and the bytes to which it is clamped: the activation's, or all there are."""

    zero: int
    low: int
    high: int


def scaling(scales: Array | float) -> Scaling:
    """Return the `Scaling` by real factors (float64)."""
    pairs = [quantized_multiplier(float(scale)) for scale in np.atleast_1d(scales)]
    multipliers, shifts = (np.array(values, np.int64) for values in zip(*pairs, strict=True))
    return Scaling(multipliers, shifts, np.atleast_1d(scales).astype(np.float32))


def rescale(total: Array, by: Scaling, to: Range, bytes_of: str = "litert") -> Array:
    """Bring int32 sums to bytes: zero + total * scale, rounded, and clamped.

    `bytes_of` "litert" and "litert-single-rounding" are those of `requantize`; those of XNNPACK and ONNX Runtime are
    rint(float32(total) * scale), halves to even. Shapes: total (..., C) -> (..., C), int64.
    """
    if bytes_of in BY_FLOATS:
        steps = np.rint(total.astype(np.float32) * by.scale).astype(np.int64)
    else:
        steps = requantize(total, by.multiplier, by.shift, bytes_of)
    result: Array = np.clip(steps + to.zero, to.low, to.high)
    return result


def conv2d(
    x: Array, x_zero: int, weight: Array, weight_zero: int, bias: Array, window: Window, by: Scaling, to: Range,
    bytes_of: str = "litert",
) -> Array:  # fmt: skip
    """Convolve: sum over ky,kx,ci of (x - x_zero) * (weight - weight_zero), plus bias, rescaled.

    Shapes: x (N, H, W, C_in), weight (C_out, K_h, K_w, C_in), bias (C_out) int32 -> (N, H_out, W_out, C_out).
    """
    w = weight.astype(np.int64) - weight_zero
    total = np.zeros((x.shape[0], window.out_height, window.out_width, len(w)), np.int64)
    for ky, kx, rows, columns, source in taps(window):
        total[:, rows, columns] += (x[:, source[0], source[1]].astype(np.int64) - x_zero) @ w[:, ky, kx].T
    return rescale(total + bias, by, to, bytes_of).astype(x.dtype)


def depthwise_conv2d(
    x: Array, x_zero: int, weight: Array, weight_zero: int, bias: Array, window: Window, by: Scaling, to: Range,
    bytes_of: str = "litert",
) -> Array:  # fmt: skip
    """Convolve each channel with its own filter, rescaled.

    Shapes: x (N, H, W, C), weight (K_h, K_w, C), bias (C) int32 -> (N, H_out, W_out, C).
    """
    w = weight.astype(np.int64) - weight_zero
    total = np.zeros((x.shape[0], window.out_height, window.out_width, x.shape[3]), np.int64)
    for ky, kx, rows, columns, source in taps(window):
        total[:, rows, columns] += (x[:, source[0], source[1]].astype(np.int64) - x_zero) * w[ky, kx]
    return rescale(total + bias, by, to, bytes_of).astype(x.dtype)


def average_pool2d(x: Array, window: Window, low: int, high: int) -> Array:
    """Average each window's values inside the image: sum / their number, halves away from zero; the scale stays.

    Shapes: x (N, H, W, C) -> (N, H_out, W_out, C).
    """
    total = np.zeros((x.shape[0], window.out_height, window.out_width, x.shape[3]), np.int64)
    area = np.zeros((window.out_height, window.out_width, 1), np.int64)
    for _, _, rows, columns, source in taps(window):
        total[:, rows, columns] += x[:, source[0], source[1]]
        area[rows, columns] += 1
    mean = np.where(total >= 0, (total + area // 2) // area, -((area // 2 - total) // area))
    return np.clip(mean, low, high).astype(x.dtype)


ADDED_BITS = 20


def add(
    x: Array, x_zero: int, y: Array, y_zero: int, scales: tuple[float, float, float], to: Range,
    bytes_of: str = "litert",
) -> Array:  # fmt: skip
    """Add two images of unlike scales (s_x, s_y, s_out): both are brought to 2**-20 of twice the larger scale first.

    XNNPACK's bytes come from integers as well: both are multiplied by their scale over the output's, as whole
    numbers of 2**-shift of which the larger has 21 bits, and the sum is rounded once, halves up. Those of ONNX
    Runtime are sums of floats: `add_as_floats`.

    Shapes: x and y alike (N, H, W, C) -> the same. Source: LiteRT, `reference/add.h`; XNNPACK, `qu8-vadd`.
    """
    if bytes_of in ONNX_RUNTIME:
        return add_as_floats(x, x_zero, y, y_zero, scales, to, bytes_of)
    steps = [values.astype(np.int64) - zero for values, zero in ((x, x_zero), (y, y_zero))]
    if bytes_of == "xnnpack":
        by_x, by_y, shift = whole_factors(scales)
        total = steps[0] * by_x + steps[1] * by_y
        result: Array = np.clip(((total + (1 << (shift - 1))) >> shift) + to.zero, to.low, to.high)
        return result.astype(x.dtype)
    *by_inputs, by_sum = add_scalings(scales)
    total = np.zeros(x.shape, np.int64)
    for values, by in zip(steps, by_inputs, strict=True):
        total = total + requantize(values << ADDED_BITS, by.multiplier, by.shift, bytes_of)
    return rescale(total, by_sum, to, bytes_of).astype(x.dtype)


def add_as_floats(
    x: Array, x_zero: int, y: Array, y_zero: int, scales: tuple[float, float, float], to: Range, bytes_of: str
) -> Array:  # fmt: skip
    """Add two images as ONNX Runtime does: rint(fma(x, s_x / s_out, fma(y, s_y / s_out, rest))) in float32.

    Bytes count as the file writes them, from 0 or from -128 on, which `bytes_of` says: that moves what is rounded, and
    now and then a byte. Shapes: as those of `add`. Source: ONNX Runtime 1.31 on x86-64 with AVX2, `MlasQLinearAdd`.
    """
    moved = written_zero(bytes_of) - (128 if x.dtype == np.int8 else 0)
    zeros = (x_zero - moved, y_zero - moved, to.zero - moved)
    by_x, by_y, rest = float_factors(scales, zeros)
    numbers = ((values.astype(np.int64) - moved).astype(np.float32) for values in (y, x))
    total = fma(next(numbers), np.asarray(by_y), np.full(x.shape, rest))
    total = fma(next(numbers), np.asarray(by_x), total)
    result: Array = np.clip(np.rint(total).astype(np.int64) + moved, to.low, to.high).astype(x.dtype)
    return result


def written_zero(bytes_of: str) -> int:
    """Return the unsigned byte that a file of ONNX Runtime's writes as 0, where the least byte is 0 or -128."""
    return 0 if bytes_of == "onnxruntime-uint8" else 128


def float_factors(
    scales: tuple[float, float, float], zeros: tuple[int, int, int]
) -> tuple[np.float32, np.float32, np.float32]:  # fmt: skip
    """Return what ONNX Runtime multiplies x and y by when it adds them, and what it adds for their zero points."""
    s_x, s_y, s_out = (np.float32(scale) for scale in scales)
    by_x, by_y = np.float32(s_x / s_out), np.float32(s_y / s_out)
    zero_x, zero_y, zero_out = (np.float32(zero) for zero in zeros)
    taken = fma(np.array([by_x]), np.asarray(zero_x), np.float32(by_y * zero_y).reshape(1))[0]
    return by_x, by_y, np.float32(zero_out - taken)


def add_scalings(scales: tuple[float, float, float]) -> tuple[Scaling, Scaling, Scaling]:
    """Return how `add` rescales x, y and their sum."""
    s_x, s_y, s_out = scales
    common = 2 * max(s_x, s_y)
    return scaling(s_x / common), scaling(s_y / common), scaling(common / (2**ADDED_BITS * s_out))


def whole_factors(scales: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return what XNNPACK multiplies x and y by when it adds them, and how far it shifts their sum to the right.

    That is less than 32: where it were more, no sum of bytes comes to half a step, and all factors are 0.
    """
    factors = [np.float32(scale) / np.float32(scales[2]) for scale in scales[:2]]
    shift = ADDED_BITS + 1 - int(np.frexp(max(factors))[1])
    if shift > 31:
        return 0, 0, 1
    by_x, by_y = (int(np.rint(np.float64(factor) * 2.0**shift)) for factor in factors)
    return by_x, by_y, shift
