"""Your answers to the exercises of the lesson. `python docs/lesson/check.py` says which are right.

Each function raises NotImplementedError until you write it. All arrays are NumPy's; H, W, C: height, width, channels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels.reference import fma  # noqa: F401  # for chapter 5

Array: TypeAlias = NDArray[Any]

# Chapter 1: depthwise separable convolution


def count_multiply_adds(
    height: int, width: int, in_channels: int, out_channels: int, kernel_size: int, stride: int, is_separable: bool
) -> int:
    """Return the multiply-adds of a layer over a height x width map with as much padding as it needs.

    The stride may not divide the size: the output has ceil(height / stride) rows. In a separable layer the depthwise
    convolution has the stride.
    """
    raise NotImplementedError


def fewest_channels(kernel_size: int, saving: int) -> int:
    """Return the least number of output channels at which a separable layer does at most 1 / saving of the work."""
    raise NotImplementedError


def filter_depthwise(x: Array, weight: Array) -> Array:
    """Convolve each channel, without padding and with stride 1. Shapes: x (H, W, C), weight (K, K, C)."""
    raise NotImplementedError


def separate(weight: Array) -> tuple[Array, Array]:
    """Return depthwise (K, K, C_in) and pointwise (C_out, C_in) weights whose product is weight (C_out, K, K, C_in)."""
    raise NotImplementedError


# Chapter 2: SAME padding


def same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return how many zeros TensorFlow's SAME puts before and after `size` pixels."""
    raise NotImplementedError


def frameworks_agree(size: int, layers: int) -> bool:
    """Tell whether SAME and padding=1 are the same through `layers` windows of 3 with stride 2."""
    raise NotImplementedError


def pad_for_pytorch(x: Array, kernel_size: int, stride: int) -> Array:
    """Return x (H, W, C) with the zeros around it with which a layer without padding gives what SAME gives."""
    raise NotImplementedError


def find_shift(size: int, kernel_sizes: list[int], strides: list[int]) -> int:
    """Return how many pixels of the picture the last map's windows lie further with SAME than with PyTorch's padding.

    `size` is the picture's. The first layer has kernel_sizes[0] and strides[0]; all kernel sizes are odd. PyTorch's
    padding is (kernel size - 1) / 2 on both sides, and gives maps of the same size as SAME.
    """
    raise NotImplementedError


# Chapter 3: batch norm


def fold(
    weight: Array, bias: Array, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array]:
    """Return weight and bias of the convolution that does its batch norm as well.

    Shapes: weight (C_out, K, K, C_in), all others (C_out).
    """
    raise NotImplementedError


def idle_batch_norm(channels: int, epsilon: float) -> tuple[Array, Array, Array, Array]:
    """Return scale, shift, mean and variance (C each) of a batch norm that changes nothing."""
    raise NotImplementedError


def fold_forwards(factor: Array, offset: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Return weight and bias of the pointwise convolution of x that equals the given one of x * factor + offset.

    Shapes: factor and offset (C_in), weight (C_out, C_in), bias (C_out).
    """
    raise NotImplementedError


def fold_twice(
    depthwise: Array, factor: Array, offset: Array, pointwise: Array, out_factor: Array, out_offset: Array
) -> tuple[Array, Array]:
    """Return weight (C_out, K, K, C_in) and bias (C_out) of one convolution in the place of four steps.

    The steps: depthwise convolution (K, K, C_in), times factor plus offset (C_in each), pointwise convolution
    (C_out, C_in), times out_factor plus out_offset (C_out each).
    """
    raise NotImplementedError


# Chapter 4: inverted residuals and linear bottlenecks


def count_block(height: int, width: int, in_channels: int, out_channels: int, expand_ratio: int, stride: int) -> int:
    """Return the multiply-adds of an inverted residual over a height x width map; ceil(height / stride) rows come out.

    With expand_ratio 1 there is no expansion layer.
    """
    raise NotImplementedError


def count_residuals(stages: list[tuple[int, int, int, int]], in_channels: int) -> int:
    """Return how many blocks add their input. A stage is (t, c, n, s), as in the paper's Table 2."""
    raise NotImplementedError


def find_survivors(points: Array, matrix: Array) -> Array:
    """Return, as booleans (P), which points can be found again from max(points @ matrix.T, 0), given the matrix.

    Shapes: points (P, D), matrix (N, D).
    """
    raise NotImplementedError


def recover(values: Array, matrix: Array) -> Array:
    """Return the points (P, D) that gave values = max(points @ matrix.T, 0); all of them can be found.

    Shapes: values (P, N), matrix (N, D).
    """
    raise NotImplementedError


# Chapter 5: from a graph to machine code


def sum_as_agreed(x: Array, weight: Array, bias: np.float32) -> np.float32:
    """Return one output of a pointwise layer with ReLU6, to the bit as the contract says.

    Shapes: x and weight (K), float32. `fma(x, w, sum)` takes arrays: slices such as x[k : k + 1] are some.
    """
    raise NotImplementedError


def find_three_numbers() -> tuple[np.float32, np.float32, np.float32]:
    """Return float32 numbers x, w, sum for which fma(x, w, sum) is not x * w + sum in float32."""
    raise NotImplementedError


def choose_tile(registers: int) -> tuple[int, int]:
    """Return (pixels, vectors) with the fewest loads per multiply-add, pixels + vectors over pixels * vectors.

    pixels * vectors + vectors + 1 registers must suffice.
    """
    raise NotImplementedError


def find_peak(lives: list[tuple[int, int, int]]) -> int:
    """Return the largest sum of sizes that are alive at one step. A life is (size, first step, last step) with both."""
    raise NotImplementedError


# Chapter 6: from a feature map to boxes


def count_anchors(height: int, width: int) -> int:
    """Return how many anchors a picture of height x width pixels has: 3 a cell on the first map, 6 on five others."""
    raise NotImplementedError


def encode_box(box: Array, anchor: Array) -> Array:
    """Return (ty, tx, th, tw) of a box (ymin, xmin, ymax, xmax) for an anchor (y, x, h, w), scales 10, 10, 5, 5."""
    raise NotImplementedError


def measure_overlap(first: Array, second: Array) -> float:
    """Return intersection over union of two boxes (ymin, xmin, ymax, xmax); 0 where one of them has no area."""
    raise NotImplementedError


def suppress_by_class(boxes: Array, labels: Array, scores: Array, threshold: float) -> list[int]:
    """Return the rows kept, best score first: a box goes if one kept before it has its label and overlaps it by more.

    Shapes: boxes (N, 4), labels (N), scores (N), all scores different.
    """
    raise NotImplementedError


# Chapter 7: from floats to bytes


def choose_bytes(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return (scale, zero) of the steps 0..2**bits - 1 that stand for low to high, widened to contain 0.

    zero is -low / scale rounded to the nearest, halves up; low and high are not both 0.
    """
    raise NotImplementedError


def expect_clipped(mean: float, deviation: float) -> float:
    """Return the mean of max(x, 0) for normal x; the deviation is above 0. `math.erf` is allowed."""
    raise NotImplementedError


def correct_bias(weight: Array, rounded: Array, bias: Array, means: Array) -> Array:
    """Return the bias with which rounded weights give every output channel the mean that it had.

    Shapes: weight and rounded (C_out, C_in), bias (C_out), means (C_in): those of the inputs.
    """
    raise NotImplementedError


def equalize(first: Array, second: Array) -> Array:
    """Return s (C): first / s[:, None] and second * s reach equally far in every channel; 1 where one is all zero.

    Shapes: first (C, A), which makes the channels, second (B, C), which reads them.
    """
    raise NotImplementedError
