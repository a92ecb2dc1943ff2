"""Answers to the exercises of the lesson; `lesson_mistakes.py` has mistakes that one makes.

Whoever works through the lesson should look here only afterwards.
"""

from __future__ import annotations

import math

import numpy as np

from minimobile_kernels.reference import fma


def sum_blocks(x, weight, size):
    total = np.zeros(1, np.float32)
    for first in range(0, len(x), size):
        block = np.zeros(1, np.float32)
        for k in range(first, min(first + size, len(x))):
            block = fma(x[k : k + 1], weight[k : k + 1], block)
        total = block if first == 0 else total + block
    return total[0]


def relu6(x):
    return np.clip(x, np.float32(0), np.float32(6))


def ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


class Official:
    @staticmethod
    def count_multiply_adds(height, width, in_channels, out_channels, kernel_size, stride, is_separable):
        places = ceil_div(height, stride) * ceil_div(width, stride)
        if is_separable:
            return places * in_channels * (kernel_size**2 + out_channels)
        return places * kernel_size**2 * in_channels * out_channels

    @staticmethod
    def fewest_channels(kernel_size, saving):
        # 1/C + 1/K**2 <= 1/saving
        return ceil_div(saving * kernel_size**2, kernel_size**2 - saving)

    @staticmethod
    def filter_depthwise(x, weight):
        size = len(weight)
        rows, columns = x.shape[0] - size + 1, x.shape[1] - size + 1
        return sum(x[ky : ky + rows, kx : kx + columns] * weight[ky, kx] for ky, kx in np.ndindex(size, size))

    @staticmethod
    def separate(weight):
        out_channels, size, _, in_channels = weight.shape
        depthwise, pointwise = np.zeros((size, size, in_channels)), np.zeros((out_channels, in_channels))
        for c in range(in_channels):
            left, strengths, right = np.linalg.svd(weight[..., c].reshape(out_channels, -1))
            depthwise[..., c], pointwise[:, c] = right[0].reshape(size, size), left[:, 0] * strengths[0]
        return depthwise, pointwise

    @staticmethod
    def same_padding(size, kernel_size, stride, dilation):
        reach = (kernel_size - 1) * dilation + 1
        total = max((ceil_div(size, stride) - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2

    @staticmethod
    def frameworks_agree(size, layers):
        return (size - 1) % 2**layers == 0

    @staticmethod
    def pad_for_pytorch(x, kernel_size, stride):
        rows, columns = (Official.same_padding(size, kernel_size, stride, 1) for size in x.shape[:2])
        return np.pad(x, (rows, columns, (0, 0)))

    @staticmethod
    def find_shift(size, kernel_sizes, strides):
        shift, step = 0, 1
        for kernel_size, stride in zip(kernel_sizes, strides, strict=True):
            before, _ = Official.same_padding(size, kernel_size, stride, 1)
            shift += ((kernel_size - 1) // 2 - before) * step
            step *= stride
            size = ceil_div(size, stride)
        return shift

    @staticmethod
    def fold(weight, bias, scale, shift, mean, variance, epsilon):
        factor = scale / np.sqrt(variance + epsilon)
        return weight * factor[:, None, None, None], (bias - mean) * factor + shift

    @staticmethod
    def idle_batch_norm(channels, epsilon):
        return np.ones(channels), np.zeros(channels), np.zeros(channels), np.full(channels, 1 - epsilon)

    @staticmethod
    def fold_forwards(factor, offset, weight, bias):
        return weight * factor, bias + weight @ offset

    @staticmethod
    def fold_twice(depthwise, factor, offset, pointwise, out_factor, out_offset):
        mixed = pointwise * out_factor[:, None]
        return (mixed * factor)[:, None, None, :] * depthwise, mixed @ offset + out_offset

    @staticmethod
    def count_block(height, width, in_channels, out_channels, expand_ratio, stride):
        inner = expand_ratio * in_channels
        expansion = height * width * in_channels * inner if expand_ratio > 1 else 0
        return expansion + ceil_div(height, stride) * ceil_div(width, stride) * inner * (9 + out_channels)

    @staticmethod
    def count_residuals(stages, in_channels):
        count = 0
        for _, channels, blocks, stride in stages:
            count += blocks - 1 + (stride == 1 and channels == in_channels)
            in_channels = channels
        return count

    @staticmethod
    def find_survivors(points, matrix):
        alive = points @ matrix.T > 0
        ranks = [np.linalg.matrix_rank(matrix * row[:, None]) for row in alive]
        return np.array(ranks) == points.shape[1]

    @staticmethod
    def recover(values, matrix):
        return np.array([np.linalg.lstsq(matrix[row > 0], row[row > 0], rcond=None)[0] for row in values])

    @staticmethod
    def sum_as_agreed(x, weight, bias):
        return relu6(sum_blocks(x, weight, 128) + bias)

    @staticmethod
    def find_three_numbers():
        third = np.float32(1) / np.float32(3)
        return third, np.float32(3), np.float32(-1)

    @staticmethod
    def choose_tile(registers):
        tiles = [(p, v) for v in range(1, registers) for p in range(1, registers) if p * v + v + 1 <= registers]
        return min(tiles, key=lambda tile: sum(tile) / (tile[0] * tile[1]))

    @staticmethod
    def find_peak(lives):
        return max((sum(s for s, start, end in lives if start <= step <= end) for _, step, _ in lives), default=0)

    @staticmethod
    def count_anchors(height, width):
        height, width = ceil_div(height, 16), ceil_div(width, 16)
        total = 3 * height * width
        for _ in range(5):
            height, width = ceil_div(height, 2), ceil_div(width, 2)
            total += 6 * height * width
        return total

    @staticmethod
    def encode_box(box, anchor):
        middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        return np.concatenate([(middle - anchor[:2]) / anchor[2:] * 10, np.log(size / anchor[2:]) * 5])

    @staticmethod
    def measure_overlap(first, second):
        sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
        shared = np.maximum(sides, 0).prod()
        areas = [(box[2:] - box[:2]).prod() for box in (first, second)]
        return shared / (sum(areas) - shared) if min(areas) > 0 else 0.0

    @staticmethod
    def suppress_by_class(boxes, labels, scores, threshold):
        kept = []
        for row in np.argsort(-scores):
            rivals = [other for other in kept if labels[other] == labels[row]]
            if all(Official.measure_overlap(boxes[other], boxes[row]) <= threshold for other in rivals):
                kept.append(int(row))
        return kept

    @staticmethod
    def choose_bytes(low, high, bits):
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / (2**bits - 1)
        return scale, math.floor(-low / scale + 0.5)

    @staticmethod
    def expect_clipped(mean, deviation):
        z = mean / deviation
        share = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        return mean * share + deviation * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    @staticmethod
    def correct_bias(weight, rounded, bias, means):
        return bias - (rounded - weight) @ means

    @staticmethod
    def equalize(first, second):
        before, after = np.abs(first).max(1), np.abs(second).max(0)
        is_alive = (before > 0) & (after > 0)
        return np.sqrt(np.where(is_alive, before, 1) / np.where(is_alive, after, 1))
