"""Checks of the answers to chapters 1 to 4: what layers cost and compute, and what becomes of batch norm."""

from __future__ import annotations

from itertools import product

import numpy as np
from judging import Answer, Check, ask, compare, draw_integers, draw_numbers, expect

from minimobile_kernels import reference
from minimobile_kernels.geometry import pad_amounts, window

# Chapter 1


def check_count_multiply_adds(answer: Answer) -> None:
    """The first two are layers of MobileNet V1, as TF-slim's documentation counts them."""
    names = ("height", "width", "in_channels", "out_channels", "kernel_size", "stride", "is_separable")
    for wanted, *case in (
        (10_838_016, 224, 224, 3, 32, 3, 2, False),
        (1_806_336 + 25_690_112, 112, 112, 64, 128, 3, 2, True),
        (840, 6, 4, 5, 7, 1, 1, False),
        (648, 7, 5, 2, 3, 3, 2, False),
        (288, 7, 5, 2, 3, 3, 2, True),
    ):
        ask(answer, wanted, **dict(zip(names, case, strict=True)))


def check_fewest_channels(answer: Answer) -> None:
    """The first two are those of the text; the others do not come out even."""
    for kernel_size, saving, wanted in ((3, 8, 72), (5, 20, 100), (3, 4, 8), (7, 10, 13)):
        ask(answer, wanted, kernel_size=kernel_size, saving=saving)


def check_filter_depthwise(answer: Answer) -> None:
    """Against the library's definition, on whole numbers."""
    for height, width, channels, size in ((6, 6, 4, 3), (5, 8, 3, 3), (7, 4, 2, 1), (5, 6, 3, 5)):
        x, weight = draw_integers(1, height, width, channels), draw_integers(2, size, size, channels)
        valid = window(height, width, (size, size), 1, 1, "VALID")
        wanted = reference.depthwise_conv2d(x[None], weight, np.zeros(channels), valid)[0]
        compare(answer(x.copy(), weight.copy()), wanted, f"x {x.shape}, weight {weight.shape}")


def check_separate(answer: Answer) -> None:
    """By multiplying what comes back; some weights are zero, as they may be in life."""
    for seed, zero in enumerate((None, (0, slice(None)), (slice(None), 1))):
        depthwise, pointwise = draw_numbers(seed, 3, 3, 4), draw_numbers(seed + 9, 6, 4)
        if zero is not None:
            pointwise[zero] = 0
        weight = pointwise[:, None, None, :] * depthwise
        got = answer(weight.copy())
        expect(isinstance(got, tuple) and len(got) == 2, "expected two arrays, depthwise and pointwise")
        shapes = tuple(np.shape(part) for part in got)
        wanted = (depthwise.shape, pointwise.shape)
        expect(shapes == wanted, f"expected the shapes {wanted}, got {shapes}")
        case = "your depthwise times your pointwise"
        if zero is not None:
            case += f", where the pointwise weights {'of an output' if seed == 1 else 'of an input'} channel are zero"
        compare(got[1][:, None, None, :] * got[0], weight, case)


# Chapter 2


def check_same_padding(answer: Answer) -> None:
    """Against the library's rule."""
    for size, kernel_size, stride, dilation in product((1, 2, 3, 7, 8, 9, 224, 225), (1, 2, 3, 5), (1, 2, 3), (1, 2)):
        wanted = pad_amounts(size, kernel_size, stride, dilation, "SAME")
        ask(answer, wanted, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation)


def check_frameworks_agree(answer: Answer) -> None:
    """Against layer after layer of the library's rule."""
    for size, layers in product(range(1, 231), (1, 2, 5)):
        wanted, rest = True, size
        for _ in range(layers):
            wanted &= pad_amounts(rest, 3, 2, 1, "SAME") == (1, 1)
            rest = -(-rest // 2)
        ask(answer, wanted, size=size, layers=layers)


def check_pad_for_pytorch(answer: Answer) -> None:
    """Height and width differ, and so may their padding."""
    for height, width, kernel_size, stride in ((8, 9, 3, 2), (9, 8, 3, 2), (6, 6, 3, 1), (8, 7, 5, 2), (4, 5, 1, 2)):
        x = draw_integers(3, height, width, 2)
        rows, columns = (pad_amounts(size, kernel_size, stride, 1, "SAME") for size in (height, width))
        case = f"{height} x {width} pixels, kernel size {kernel_size}, stride {stride}"
        compare(answer(x.copy(), kernel_size, stride), np.pad(x, (rows, columns, (0, 0))), case)


def check_find_shift(answer: Answer) -> None:
    """The first case is a MobileNet's."""
    for size, kernel_sizes, strides in (
        (224, [3] * 5, [2] * 5),
        (225, [3] * 5, [2] * 5),
        (224, [3, 3, 3, 3], [2, 1, 2, 1]),
        (224, [7, 3, 3, 3], [2, 2, 1, 2]),
        (96, [5, 3, 1, 5], [2, 3, 2, 2]),
        (9, [3, 3], [3, 3]),
    ):
        wanted, step, rest = 0, 1, size
        for kernel_size, stride in zip(kernel_sizes, strides, strict=True):
            wanted += step * ((kernel_size - 1) // 2 - pad_amounts(rest, kernel_size, stride, 1, "SAME")[0])
            step, rest = step * stride, -(-rest // stride)
        ask(answer, wanted, size=size, kernel_sizes=list(kernel_sizes), strides=list(strides))


# Chapter 3


def check_fold(answer: Answer) -> None:
    """By a window with and without folding."""
    weight, bias, x = draw_numbers(1, 5, 3, 3, 2), draw_numbers(2, 5), draw_numbers(3, 3, 3, 2)
    scale, shift, mean = draw_numbers(4, 5), draw_numbers(5, 5), draw_numbers(6, 5)
    variance, epsilon = np.array([0.0, 0.001, 0.1, 1.0, 9.0]), 0.001
    wanted = ((x * weight).sum(axis=(1, 2, 3)) + bias - mean) / np.sqrt(variance + epsilon) * scale + shift
    got = answer(weight.copy(), bias.copy(), scale, shift, mean, variance, epsilon)
    expect(isinstance(got, tuple) and len(got) == 2, "expected two arrays, weight and bias")
    expect(np.shape(got[0]) == weight.shape, f"expected weights {weight.shape}, got {np.shape(got[0])}")
    compare((x * got[0]).sum(axis=(1, 2, 3)) + got[1], wanted, "a window's outputs")


def check_idle_batch_norm(answer: Answer) -> None:
    """By sending numbers through it."""
    for channels, epsilon in ((1, 0.001), (3, 0.00001), (4, 0.5)):
        x = draw_numbers(7, 6, channels)
        got = answer(channels, epsilon)
        expect(isinstance(got, tuple) and len(got) == 4, "expected four arrays: scale, shift, mean, variance")
        shapes = [np.shape(part) for part in got]
        expect(shapes == [(channels,)] * 4, f"expected four arrays of {channels}, got the shapes {shapes}")
        scale, shift, mean, variance = got
        expect(bool((variance >= 0).all()), f"expected variances of at least 0, got {variance}")
        compare((x - mean) / np.sqrt(variance + epsilon) * scale + shift, x, f"numbers sent through, epsilon {epsilon}")


def check_fold_forwards(answer: Answer) -> None:
    """By pixels with and without folding."""
    factor, offset, weight, bias = draw_numbers(1, 4), draw_numbers(2, 4), draw_numbers(3, 6, 4), draw_numbers(4, 6)
    x = draw_numbers(5, 8, 4)
    got = answer(factor, offset, weight.copy(), bias.copy())
    expect(isinstance(got, tuple) and len(got) == 2, "expected two arrays, weight and bias")
    expect(np.shape(got[0]) == weight.shape, f"expected weights {weight.shape}, got {np.shape(got[0])}")
    compare(x @ got[0].T + got[1], (x * factor + offset) @ weight.T + bias, "a pixel's outputs")


def check_fold_twice(answer: Answer) -> None:
    """By a window that goes through four steps, and through one."""
    depthwise, pointwise, x = draw_numbers(1, 3, 3, 4), draw_numbers(2, 6, 4), draw_numbers(3, 3, 3, 4)
    factor, offset, out_factor, out_offset = (draw_numbers(4 + index, size) for index, size in enumerate((4, 4, 6, 6)))
    wanted = pointwise @ ((x * depthwise).sum(axis=(0, 1)) * factor + offset) * out_factor + out_offset
    got = answer(depthwise.copy(), factor, offset, pointwise.copy(), out_factor, out_offset)
    expect(isinstance(got, tuple) and len(got) == 2, "expected two arrays, weight and bias")
    expect(np.shape(got[0]) == (6, 3, 3, 4), f"expected weights (6, 3, 3, 4), got {np.shape(got[0])}")
    compare((x * got[0]).sum(axis=(1, 2, 3)) + got[1], wanted, "a window's outputs")


# Chapter 4


def check_count_block(answer: Answer) -> None:
    """The first two are blocks of MobileNet V2."""
    names = ("height", "width", "in_channels", "out_channels", "expand_ratio", "stride")
    for wanted, *case in (
        (10_035_200, 112, 112, 32, 16, 1, 1),
        (29_202_432, 112, 112, 16, 24, 6, 2),
        (2_568, 7, 5, 2, 3, 6, 2),
        (3_060, 3, 5, 4, 4, 3, 1),
    ):
        ask(answer, wanted, **dict(zip(names, case, strict=True)))


def check_count_residuals(answer: Answer) -> None:
    """The first table is the paper's."""
    paper = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for wanted, stages, in_channels in (
        (10, paper, 32),
        (11, [(1, 32, 1, 1), *paper[1:]], 32),
        (1, [(6, 32, 2, 2)], 32),
        (3, [(6, 8, 2, 1), (6, 8, 2, 2)], 8),
        (0, [], 8),
    ):
        ask(answer, wanted, stages=list(stages), in_channels=in_channels)


def check_find_survivors(answer: Answer) -> None:
    """A point survives where the rows that are above zero span the space."""
    for seed, (count, dimensions) in enumerate(((2, 2), (3, 2), (5, 3), (5, 2))):
        points, matrix = draw_numbers(seed, 40, dimensions), draw_numbers(seed + 9, count, dimensions)
        if seed == 3:
            matrix[1:4] = matrix[0] * np.array([[2.0], [0.5], [3.0]])
            matrix[4] = matrix[0, 1], -matrix[0, 0]
        ranks = [np.linalg.matrix_rank(matrix[row > 0]) if (row > 0).any() else 0 for row in points @ matrix.T]
        wanted, got = np.array(ranks) == dimensions, np.asarray(answer(points.copy(), matrix.copy()))
        expect(got.shape == wanted.shape, f"expected a truth value for each of {len(points)} points, got {got.shape}")
        case = f"{count} numbers for points in {dimensions} dimensions{', four in one direction' if seed == 3 else ''}"
        expect(np.array_equal(got.astype(bool), wanted), f"{case}: wrong about {(got != wanted).sum()} of 40 points")


def check_recover(answer: Answer) -> None:
    """Only points that can be found are asked for."""
    for seed, (count, dimensions) in enumerate(((6, 2), (12, 3))):
        points, matrix = draw_numbers(seed, 60, dimensions), draw_numbers(seed + 9, count, dimensions)
        points = points[(points @ matrix.T > 0).sum(axis=1) >= dimensions]
        values = np.maximum(points @ matrix.T, 0)
        compare(answer(values, matrix.copy()), points, f"points in {dimensions} dimensions from {count} numbers")


CHAPTERS: tuple[tuple[Check, ...], ...] = (
    (check_count_multiply_adds, check_fewest_channels, check_filter_depthwise, check_separate),
    (check_same_padding, check_frameworks_agree, check_pad_for_pytorch, check_find_shift),
    (check_fold, check_idle_batch_norm, check_fold_forwards, check_fold_twice),
    (check_count_block, check_count_residuals, check_find_survivors, check_recover),
)
