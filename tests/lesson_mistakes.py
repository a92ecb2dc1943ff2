"""Wrong answers to the exercises of the lesson: mistakes that one makes, by exercise, with words of what helps.

Whoever works through the lesson should look here only afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

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


def pad_below_zero(size, kernel_size, stride, dilation):
    total = (ceil_div(size, stride) - 1) * stride + (kernel_size - 1) * dilation + 1 - size
    return total // 2, total - total // 2


def pad_whole_strides(size, kernel_size, stride, dilation):
    total = max((size // stride - 1) * stride + (kernel_size - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def encode_corner(box, anchor):
    return np.concatenate([(box[:2] - anchor[:2]) / anchor[2:] * 10, Official.encode_box(box, anchor)[2:]])


def equalize_the_living(first, second):
    with np.errstate(all="ignore"):
        return np.sqrt(np.abs(first).max(1) / np.abs(second).max(0))


def shift_without_strides(size, kernel_sizes, strides):
    return sum(
        (k - 1) // 2 - Official.same_padding(size, k, s, 1)[0] for k, s in zip(kernel_sizes, strides, strict=True)
    )


def count_expansion_always(height, width, in_channels, out_channels, expand_ratio, stride):
    added = height * width * in_channels**2 if expand_ratio == 1 else 0
    return added + Official.count_block(height, width, in_channels, out_channels, expand_ratio, stride)


def count_shared_twice(first, second):
    shared = Official.measure_overlap(first, second)
    return shared / (1 + shared)


def overlap_apart(first, second):
    shared = (np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])).prod()
    return shared / (sum((box[2:] - box[:2]).prod() for box in (first, second)) - shared)


def suppress_by_any(boxes, labels, scores, threshold):
    rows = [int(row) for row in np.argsort(-scores)]
    return [
        row
        for place, row in enumerate(rows)
        if all(
            Official.measure_overlap(boxes[other], boxes[row]) <= threshold
            for other in rows[:place]
            if labels[other] == labels[row]
        )
    ]


def scale_density_by_one(mean, deviation):
    z = mean / deviation
    return mean * 0.5 * (1 + math.erf(z / math.sqrt(2))) + math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def start_at_the_bias(x, weight, bias):
    total = bias
    for first in range(0, len(x), 128):
        total = total + sum_blocks(x[first : first + 128], weight[first : first + 128], 128)
    return relu6(total)


def overlap_nan(first, second):
    areas = [(box[2:] - box[:2]).prod() for box in (first, second)]
    return Official.measure_overlap(first, second) if max(areas) > 0 else math.nan


def count_at_output_only(height, width, in_channels, out_channels, expand_ratio, stride):
    inner = expand_ratio * in_channels
    places = ceil_div(height, stride) * ceil_div(width, stride)
    return places * inner * (9 + out_channels + (in_channels if expand_ratio > 1 else 0))


Mistake: TypeAlias = tuple[Callable[..., Any], str]

WRONG: Mapping[str, tuple[Mistake, ...]] = {
    "count_multiply_adds": (
        (lambda **size: Official.count_multiply_adds(**{**size, "stride": 1}), "every `stride`th row"),
        (lambda **size: Official.count_multiply_adds(**{**size, "is_separable": False}), "add what they cost"),
        (
            lambda **size: Official.count_multiply_adds(
                **{
                    **size,
                    "height": size["height"] // size["stride"],
                    "width": size["width"] // size["stride"],
                    "stride": 1,
                }
            ),
            "round up",
        ),
    ),
    "fewest_channels": (
        (lambda kernel_size, saving: saving, "8 do 0.2361 of the work"),
        (lambda kernel_size, saving: round(1 / (1 / saving - 1 / kernel_size**2)), "7 do 0.2540 of the work"),
        (
            lambda kernel_size, saving: math.floor(saving * kernel_size**2 / (kernel_size**2 - saving)) + 1,
            "one too many",
        ),
    ),
    "filter_depthwise": (
        (lambda x, weight: x, "size - K + 1 places"),
        (
            lambda x, weight: Official.filter_depthwise(
                x, weight[::-1, ::-1]
            ),  # a convolution as mathematicians have it
            "not turned round",
        ),
        (lambda x, weight: Official.filter_depthwise(x, weight).sum(axis=2, keepdims=True), "mixes nothing"),
        (
            lambda x, weight: Official.filter_depthwise(x, weight.transpose(1, 0, 2)),
            "first axis of the weight goes down",
        ),
    ),
    "separate": (
        (separate_by_first_row, "multiples of one filter"),
        (lambda weight: (weight.mean(axis=0), weight.mean(axis=(1, 2))), "multiples of one filter"),
        (lambda weight: Official.separate(weight)[::-1], "depthwise comes first"),
        (lambda weight: weight, "two arrays"),
    ),
    "same_padding": (
        (pad_odd_first, "the odd zero comes after"),
        (lambda size, kernel_size, stride, dilation: ((kernel_size - 1) // 2,) * 2, "PyTorch's padding"),
        (
            lambda size, kernel_size, stride, dilation: Official.same_padding(size, kernel_size, stride, 1),
            "the window reaches over 3 pixels",
        ),
        (
            lambda size, kernel_size, stride, dilation: tuple(
                dilation * zeros for zeros in Official.same_padding(size, kernel_size, stride, 1)
            ),
            "the window reaches over 3 pixels",
        ),
        (pad_below_zero, "never fewer than 0"),
        (pad_whole_strides, "round up"),
    ),
    "frameworks_agree": (
        (lambda size, layers: size % 2 == 1, "on the way are 3, 2, and SAME puts (0, 1) around 2"),
        (lambda size, layers: size % 2**layers == 0, "SAME puts (1, 1) around each"),
        (lambda size, layers: size > 1 and (size - 1) % 2**layers == 0, "SAME puts (1, 1) around each"),
    ),
    "pad_for_pytorch": (
        (pad_like_pytorch, "(0, 1) zeros above and below"),
        (lambda x, kernel_size, stride: np.pad(x, ((0, 1), (0, 1), (0, 0))), "(1, 1) on the left and right"),
        (
            lambda x, kernel_size, stride: np.pad(
                x, (*[Official.same_padding(x.shape[0], kernel_size, stride, 1)] * 2, (0, 0)), "edge"
            ),
            "(1, 1) on the left and right",
        ),
        (
            lambda x, kernel_size, stride: Official.pad_for_pytorch(x.transpose(1, 0, 2), kernel_size, stride),
            "(0, 1) zeros above and below",
        ),
    ),
    "find_shift": (
        (shift_without_strides, "1 * 1 + 1 * 2 + 1 * 4"),
        (lambda size, kernel_sizes, strides: 2 ** len(strides) - 1, "0 * 1 + 0 * 2 + 0 * 4"),
        (lambda size, kernel_sizes, strides: -Official.find_shift(size, kernel_sizes, strides), "with SAME"),
    ),
    "fold": (
        (lambda weight, bias, *others: Official.fold(weight, 0 * bias, *others), "own bias goes through"),
        (lambda *values: Official.fold(*values[:-1], 1e-5), "epsilon is an argument"),
        (
            lambda weight, bias, scale, shift, mean, variance, epsilon: Official.fold(
                weight, bias, scale, shift, mean, variance**2, epsilon
            ),
            "a square already",
        ),
        (lambda weight, bias, scale, shift, mean, variance, epsilon: (weight, bias), "nothing has been folded"),
    ),
    "idle_batch_norm": (
        (
            lambda channels, epsilon: (np.ones(channels), *np.zeros((2, channels)), np.ones(channels)),
            "your factor is 0.9995",
        ),
        (
            lambda channels, epsilon: (np.ones(channels), *np.zeros((2, channels)), np.full(channels, 1 + epsilon)),
            "your factor is 0.999001",
        ),
        (lambda channels, epsilon: (1.0, 0.0, 0.0, 1 - epsilon), "four arrays"),
    ),
    "fold_forwards": (
        (lambda factor, offset, weight, bias: (weight * factor, bias), "reaches every output"),
        (
            lambda factor, offset, weight, bias: (weight * factor, bias + (weight * factor) @ offset),
            "the offset comes after the factor",
        ),
        (lambda factor, offset, weight, bias: (weight, bias), "nothing has been folded"),
    ),
    "fold_twice": (
        (
            lambda d, f, o, p, out_f, out_o: (Official.fold_twice(d, f, o, p, out_f, out_o)[0], p @ o + out_o),
            "multiplied by out_factor",
        ),
        (
            lambda d, f, o, p, out_f, out_o: (Official.fold_twice(d, f, o, p, out_f, out_o)[0], out_o),
            "through the pointwise weights",
        ),
        (lambda d, f, o, p, out_f, out_o: Official.fold_twice(d, f, o, p, np.ones(6), out_o), "has a factor, too"),
    ),
    "count_block": (
        (count_at_output_only, "works on the input's pixels"),
        (lambda **size: Official.count_block(**{**size, "stride": 1}), "has the stride"),
        (count_expansion_always, "an expansion is there with expand_ratio above 1"),
    ),
    "count_residuals": (
        (lambda stages, in_channels: sum(n - 1 for _, _, n, _ in stages), "the first block of a stage adds"),
        (lambda stages, in_channels: sum(n for _, _, n, _ in stages), "changes size or channels"),
        (lambda stages, in_channels: sum(n - 1 + (s == 1) for _, _, n, s in stages), "must not change"),
    ),
    "find_survivors": (
        (lambda points, matrix: (points @ matrix.T > 0).sum(axis=1) >= points.shape[1], "have rank 1"),
        (lambda points, matrix: (points @ matrix.T > 0).any(axis=1), "keeps 1 numbers"),
        (lambda points, matrix: np.ones(len(points), bool), "keeps 0 numbers"),
        (lambda points, matrix: True, "a truth value for each of 40 points"),
    ),
    "recover": (
        (lambda values, matrix: values @ np.linalg.pinv(matrix).T, "with the others alone"),
        (lambda values, matrix: 2 * values @ np.linalg.pinv(matrix).T, "with the others alone"),
        (lambda values, matrix: values[:, : matrix.shape[1]], "with the others alone"),
    ),
    "sum_as_agreed": (
        (add_unfused, "use fma"),
        (lambda x, weight, bias: relu6(sum_blocks(x, weight, len(x)) + bias), "a new block begins"),
        (lambda x, weight, bias: relu6(sum_blocks(x[::-1], weight[::-1], 128) + bias), "the order of the steps"),
        (lambda x, weight, bias: sum_blocks(x, weight, 128) + bias, "ReLU6 comes last"),
        (lambda x, weight, bias: relu6(np.float32(np.dot(x.astype(np.float64), weight) + bias)), "rounded to float32"),
        (start_at_the_bias, "the bias comes after all blocks"),
    ),
    "find_three_numbers": (
        (lambda: (np.float32(1), np.float32(2), np.float32(3)), "too short for the product"),
        (lambda: (0.1, 0.2, 0.3), "three np.float32"),
        (lambda: (np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1)), "other numbers"),
        (lambda: (np.float32("inf"), np.float32(0), np.float32(1)), "finite"),
    ),
    "choose_tile": (
        (lambda registers: (14, 2), "needs 31"),
        (lambda registers: ((registers - 2), 1), "the best tile 1.000"),
        (lambda registers: (1, 1), "the best tile 1.000"),
    ),
    "find_peak": (
        (lambda lives: sum(size for size, _, _ in lives), "at step 1 maps of [5, 7] are alive"),
        (lambda lives: max((size for size, _, _ in lives), default=0), "at step 1 maps of [5, 7] are alive"),
        (
            lambda lives: max(
                (sum(s for s, start, end in lives if start <= step < end) for _, step, _ in lives), default=0
            ),
            "the last step of a map counts",
        ),
    ),
    "count_anchors": (
        (lambda height, width: 1917, "20 x 20"),
        (
            lambda height, width: (
                3 * (height // 16) * (width // 16) + sum(6 * (height // 2**k) * (width // 2**k) for k in range(5, 10))
            ),
            "19 x 19",
        ),
        (lambda height, width: Official.count_anchors(height, height), "12 x 16"),
    ),
    "encode_box": (
        (lambda box, anchor: Official.encode_box(box, anchor) / (10, 10, 5, 5), "scales are missing"),
        (lambda box, anchor: Official.encode_box(box, anchor)[[1, 0, 3, 2]], "the order is y, x, h, w"),
        (
            lambda box, anchor: np.concatenate(
                [Official.encode_box(box, anchor)[:2], (box[2:] - box[:2]) / anchor[2:]]
            ),
            "logarithms",
        ),
        (encode_corner, "not of its corner"),
    ),
    "measure_overlap": (
        (intersection_over_smaller, "not of the smaller box"),
        (count_shared_twice, "not twice"),
        (overlap_apart, "a side is never below 0"),
        (overlap_nan, "nothing to divide by"),
    ),
    "suppress_by_class": (
        (
            lambda boxes, labels, scores, threshold: Official.suppress_by_class(boxes, 0 * labels, scores, threshold),
            "boxes of one label",
        ),
        (
            lambda boxes, labels, scores, threshold: Official.suppress_by_class(boxes, labels, -scores, threshold),
            "the best score comes first",
        ),
        (lambda boxes, labels, scores, threshold: [int(row) for row in np.argsort(-scores)], "nothing has been"),
        (suppress_by_any, "suppresses no other"),
        (
            lambda boxes, labels, scores, threshold: Official.suppress_by_class(
                boxes, labels, scores, threshold - 1e-9
            ),
            "by more than the threshold",
        ),
        (lambda *case: sorted(Official.suppress_by_class(*case)), "in what is returned"),
    ),
    "choose_bytes": (
        (lambda low, high, bits: ((high - low) / (2**bits - 1), 0), "the step that stands for 0"),
        (lambda low, high, bits: Official.choose_bytes(low, high, 8), "4 bits are 16 numbers"),
        (
            lambda low, high, bits: ((high - low) / 2**bits, math.floor(-low / ((high - low) / 2**bits) + 0.5)),
            "there are 255 steps",
        ),
        (
            lambda low, high, bits: (
                (high - low) / (2**bits - 1),
                math.floor(-low / (high - low) * (2**bits - 1) + 0.5),
            ),
            "widen it first",
        ),
        (
            lambda low, high, bits: (
                Official.choose_bytes(low, high, bits)[0],
                round(-min(low, 0.0) / Official.choose_bytes(low, high, bits)[0]),
            ),
            "halves up",
        ),
    ),
    "expect_clipped": (
        (lambda mean, deviation: max(mean, 0.0), "not max(mean, 0)"),
        (lambda mean, deviation: mean * 0.5 * (1 + math.erf(mean / deviation / math.sqrt(2))), "not max(mean, 0)"),
        (scale_density_by_one, "multiplied by the deviation"),
    ),
    "correct_bias": (
        (lambda weight, rounded, bias, means: bias, "make up for"),
        (lambda weight, rounded, bias, means: bias + (rounded - weight) @ means, "take off"),
        (lambda weight, rounded, bias, means: bias - (rounded - weight).sum(1), "the mean of its own input"),
    ),
    "equalize": (
        (lambda first, second: np.abs(first).max(1) / np.maximum(np.abs(second).max(0), 1e-9), "take the root"),
        (lambda first, second: 1 / Official.equalize(first, second), "the other way round"),
        (lambda first, second: np.ones(len(first)), "reach equally far"),
        (equalize_the_living, "channels [1, 2] are dead"),
    ),
}
