"""Wrong answers to the exercises of the lesson: mistakes that one makes, by exercise.

Whoever works through the lesson should look here only afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from lesson_answers import Official, ceil_div, relu6, sum_blocks


def intersection_over_smaller(first, second):
    sides = np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0)
    smaller = min((box[2:] - box[:2]).prod() for box in (first, second))
    return sides.prod() / smaller if smaller > 0 else 0.0


def add_unfused(x, weight, bias):
    total = np.float32(0)
    for one, w in zip(x, weight, strict=True):
        total = total + one * w
    return relu6(total + bias)


def pad_like_pytorch(x, kernel_size, stride):
    border = (kernel_size - 1) // 2
    return np.pad(x, ((border, border), (border, border), (0, 0)))


def separate_by_first_row(weight):
    depthwise = weight[0]
    with np.errstate(all="ignore"):
        return np.nan_to_num(depthwise), np.nan_to_num(weight[:, 1, 1] / depthwise[1, 1])


def pad_odd_first(size, kernel_size, stride, dilation):
    before, after = Official.same_padding(size, kernel_size, stride, dilation)
    return after, before


def shift_without_strides(size, kernel_sizes, strides):
    return sum(
        (k - 1) // 2 - Official.same_padding(size, k, s, 1)[0] for k, s in zip(kernel_sizes, strides, strict=True)
    )


def count_at_output_only(height, width, in_channels, out_channels, expand_ratio, stride):
    inner = expand_ratio * in_channels
    places = ceil_div(height, stride) * ceil_div(width, stride)
    return places * inner * (9 + out_channels + (in_channels if expand_ratio > 1 else 0))


WRONG: Mapping[str, tuple[Callable[..., Any], ...]] = {
    "count_multiply_adds": (
        lambda **size: Official.count_multiply_adds(**{**size, "stride": 1}),
        lambda **size: Official.count_multiply_adds(**{**size, "is_separable": False}),
        lambda **size: Official.count_multiply_adds(
            **{
                **size,
                "height": size["height"] // size["stride"],
                "width": size["width"] // size["stride"],
                "stride": 1,
            }
        ),
    ),
    "fewest_channels": (
        lambda kernel_size, saving: saving,
        lambda kernel_size, saving: round(1 / (1 / saving - 1 / kernel_size**2)),
    ),
    "filter_depthwise": (
        lambda x, weight: x,
        lambda x, weight: Official.filter_depthwise(x, weight[::-1, ::-1]),  # a convolution as mathematicians have it
        lambda x, weight: Official.filter_depthwise(x, weight).sum(axis=2, keepdims=True),
        lambda x, weight: Official.filter_depthwise(x, weight.transpose(1, 0, 2)),
    ),
    "separate": (
        separate_by_first_row,
        lambda weight: (weight.mean(axis=0), weight.mean(axis=(1, 2))),
        lambda weight: Official.separate(weight)[::-1],
        lambda weight: weight,
    ),
    "same_padding": (
        pad_odd_first,
        lambda size, kernel_size, stride, dilation: ((kernel_size - 1) // 2,) * 2,
        lambda size, kernel_size, stride, dilation: Official.same_padding(size, kernel_size, stride, 1),
        lambda size, kernel_size, stride, dilation: tuple(
            dilation * zeros for zeros in Official.same_padding(size, kernel_size, stride, 1)
        ),
    ),
    "frameworks_agree": (
        lambda size, layers: size % 2 == 1,
        lambda size, layers: size % 2**layers == 0,
        lambda size, layers: size > 1 and (size - 1) % 2**layers == 0,
    ),
    "pad_for_pytorch": (
        pad_like_pytorch,
        lambda x, kernel_size, stride: np.pad(x, ((0, 1), (0, 1), (0, 0))),
        lambda x, kernel_size, stride: np.pad(
            x, (*[Official.same_padding(x.shape[0], kernel_size, stride, 1)] * 2, (0, 0)), "edge"
        ),
        lambda x, kernel_size, stride: Official.pad_for_pytorch(x.transpose(1, 0, 2), kernel_size, stride),
    ),
    "find_shift": (
        shift_without_strides,
        lambda size, kernel_sizes, strides: 2 ** len(strides) - 1,
        lambda size, kernel_sizes, strides: -Official.find_shift(size, kernel_sizes, strides),
    ),
    "fold": (
        lambda weight, bias, *others: Official.fold(weight, 0 * bias, *others),
        lambda *values: Official.fold(*values[:-1], 1e-5),
        lambda weight, bias, scale, shift, mean, variance, epsilon: Official.fold(
            weight, bias, scale, shift, mean, variance**2, epsilon
        ),
        lambda weight, bias, scale, shift, mean, variance, epsilon: (weight, bias),
    ),
    "idle_batch_norm": (
        lambda channels, epsilon: (np.ones(channels), *np.zeros((2, channels)), np.ones(channels)),
        lambda channels, epsilon: (np.ones(channels), *np.zeros((2, channels)), np.full(channels, 1 + epsilon)),
        lambda channels, epsilon: (1.0, 0.0, 0.0, 1 - epsilon),
    ),
    "fold_forwards": (
        lambda factor, offset, weight, bias: (weight * factor, bias),
        lambda factor, offset, weight, bias: (weight * factor, bias + (weight * factor) @ offset),
        lambda factor, offset, weight, bias: (weight, bias),
    ),
    "fold_twice": (
        lambda d, f, o, p, out_f, out_o: (Official.fold_twice(d, f, o, p, out_f, out_o)[0], p @ o + out_o),
        lambda d, f, o, p, out_f, out_o: (Official.fold_twice(d, f, o, p, out_f, out_o)[0], out_o),
        lambda d, f, o, p, out_f, out_o: Official.fold_twice(d, f, o, p, np.ones(6), out_o),
    ),
    "count_block": (
        count_at_output_only,
        lambda **size: Official.count_block(**{**size, "stride": 1}),
        lambda **size: Official.count_block(**size) + (size["expand_ratio"] == 1) * size["in_channels"] ** 2,
    ),
    "count_residuals": (
        lambda stages, in_channels: sum(n - 1 for _, _, n, _ in stages),
        lambda stages, in_channels: sum(n for _, _, n, _ in stages),
        lambda stages, in_channels: sum(n - 1 + (s == 1) for _, _, n, s in stages),
    ),
    "find_survivors": (
        lambda points, matrix: (points @ matrix.T > 0).sum(axis=1) >= points.shape[1],
        lambda points, matrix: (points @ matrix.T > 0).any(axis=1),
        lambda points, matrix: np.ones(len(points), bool),
        lambda points, matrix: True,
    ),
    "recover": (
        lambda values, matrix: values @ np.linalg.pinv(matrix).T,
        lambda values, matrix: 2 * values @ np.linalg.pinv(matrix).T,
        lambda values, matrix: values[:, : matrix.shape[1]],
    ),
    "sum_as_agreed": (
        add_unfused,
        lambda x, weight, bias: relu6(sum_blocks(x, weight, len(x)) + bias),  # one chain
        lambda x, weight, bias: relu6(sum_blocks(x[::-1], weight[::-1], 128) + bias),
        lambda x, weight, bias: sum_blocks(x, weight, 128) + bias,
        lambda x, weight, bias: relu6(np.float32(np.dot(x.astype(np.float64), weight) + bias)),
    ),
    "find_three_numbers": (
        lambda: (np.float32(1), np.float32(2), np.float32(3)),
        lambda: (0.1, 0.2, 0.3),
        lambda: (np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1)),
        lambda: (np.float32("inf"), np.float32(0), np.float32(1)),
    ),
    "choose_tile": (
        lambda registers: (14, 2),
        lambda registers: ((registers - 2), 1),
        lambda registers: (1, 1),
    ),
    "find_peak": (
        lambda lives: sum(size for size, _, _ in lives),
        lambda lives: max((size for size, _, _ in lives), default=0),
        lambda lives: max(
            (sum(s for s, start, end in lives if start <= step < end) for _, step, _ in lives), default=0
        ),
    ),
    "count_anchors": (
        lambda height, width: 1917,
        lambda height, width: (
            3 * (height // 16) * (width // 16) + sum(6 * (height // 2**k) * (width // 2**k) for k in range(5, 10))
        ),
        lambda height, width: Official.count_anchors(height, height),
    ),
    "encode_box": (
        lambda box, anchor: Official.encode_box(box, anchor) / (10, 10, 5, 5),
        lambda box, anchor: Official.encode_box(box, anchor)[[1, 0, 3, 2]],
        lambda box, anchor: np.concatenate([Official.encode_box(box, anchor)[:2], (box[2:] - box[:2]) / anchor[2:]]),
    ),
    "measure_overlap": (
        intersection_over_smaller,
        lambda first, second: Official.measure_overlap(first, second) / 2,
        lambda first, second: 1.0,
    ),
    "suppress_by_class": (
        lambda boxes, labels, scores, threshold: Official.suppress_by_class(boxes, 0 * labels, scores, threshold),
        lambda boxes, labels, scores, threshold: Official.suppress_by_class(boxes, labels, -scores, threshold),
        lambda boxes, labels, scores, threshold: [int(row) for row in np.argsort(-scores)],
    ),
    "choose_bytes": (
        lambda low, high, bits: ((high - low) / (2**bits - 1), 0),
        lambda low, high, bits: Official.choose_bytes(low, high, 8),
        lambda low, high, bits: ((high - low) / 2**bits, math.floor(-low / ((high - low) / 2**bits) + 0.5)),
    ),
    "expect_clipped": (
        lambda mean, deviation: max(mean, 0.0),
        lambda mean, deviation: mean * 0.5 * (1 + math.erf(mean / deviation / math.sqrt(2))),
        lambda mean, deviation: Official.expect_clipped(mean, 1.0),
    ),
    "correct_bias": (
        lambda weight, rounded, bias, means: bias,
        lambda weight, rounded, bias, means: bias + (rounded - weight) @ means,
        lambda weight, rounded, bias, means: bias - (rounded - weight).sum(1),
    ),
    "equalize": (
        lambda first, second: np.abs(first).max(1) / np.maximum(np.abs(second).max(0), 1e-9),
        lambda first, second: 1 / Official.equalize(first, second),
        lambda first, second: np.ones(len(first)),
    ),
}
