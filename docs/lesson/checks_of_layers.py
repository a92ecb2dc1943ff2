"""Checks of the answers to chapters 1 to 4: what layers cost and compute, and what becomes of batch norm."""

from __future__ import annotations

from itertools import product

import numpy as np
from judging import Answer, Array, Check, ask, compare, draw_integers, draw_numbers, expect

from minimobile_kernels import reference
from minimobile_kernels.geometry import pad_amounts, window

NOTHING_FOLDED = "nothing has been folded in"


def _is_row(got: object, count: int) -> bool:
    return isinstance(got, tuple | list) and len(got) == count


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
        height, width, in_channels, out_channels, kernel_size, stride, _ = case
        places = -(-height // stride) * -(-width // stride)
        filtering, mixing = places * kernel_size**2 * in_channels, places * in_channels * out_channels
        hints = (
            (wanted // places * height * width, "a window stands at every `stride`th row and column only"),
            (
                wanted // places * (height // stride) * (width // stride),
                "a row that is left over is one more: round up",
            ),
            (height * width * kernel_size**2 * in_channels + mixing, "the depthwise layer has the stride, too"),
            (filtering * out_channels, "a separable layer is a depthwise and a pointwise one: add what they cost"),
        )
        ask(answer, wanted, hints, **dict(zip(names, case, strict=True)))


def check_fewest_channels(answer: Answer) -> None:
    """The first two are those of the text; the others do not come out even."""
    for kernel_size, saving, wanted in ((3, 8, 72), (5, 20, 100), (3, 4, 8), (7, 10, 13)):
        hints: list[tuple[object, str]] = [(wanted + 1, f"one too many: exactly 1 / {saving} of the work is allowed")]
        for channels in range(1, wanted):
            share = 1 / channels + 1 / kernel_size**2
            hints.append((channels, f"{channels} do {share:.4f} of the work, {1 / saving:.4f} is the most"))
        ask(answer, wanted, hints, kernel_size=kernel_size, saving=saving)


def check_filter_depthwise(answer: Answer) -> None:
    """Against the library's definition, on whole numbers."""
    for height, width, channels, size in ((6, 6, 4, 3), (5, 8, 3, 3), (7, 4, 2, 1), (5, 6, 3, 5)):
        x, weight = draw_integers(1, height, width, channels), draw_integers(2, size, size, channels)

        def filter_by(taps: Array, x: Array = x) -> Array:
            valid = window(*x.shape[:2], taps.shape[:2], 1, 1, "VALID")
            return reference.depthwise_conv2d(x[None], taps, np.zeros(x.shape[2]), valid)[0]

        wanted = filter_by(weight)
        hints = (
            (filter_by(weight[::-1, ::-1]), "the filter is not turned round: its first tap meets the first pixel"),
            (filter_by(weight.transpose(1, 0, 2)), "the first axis of the weight goes down, the second to the right"),
            (wanted.sum(axis=2), "a depthwise layer mixes nothing: every channel stays by itself"),
            (wanted.sum(axis=2, keepdims=True), "a depthwise layer mixes nothing: every channel stays by itself"),
            (x, "without padding there are size - K + 1 places"),
        )
        compare(answer(x.copy(), weight.copy()), wanted, f"x {x.shape}, weight {weight.shape}", hints)


def check_separate(answer: Answer) -> None:
    """By multiplying what comes back; some weights are zero, as they may be in life."""
    for seed, zero in enumerate((None, (0, slice(None)), (slice(None), 1))):
        depthwise, pointwise = draw_numbers(seed, 3, 3, 4), draw_numbers(seed + 9, 6, 4)
        if zero is not None:
            pointwise[zero] = 0
        weight = pointwise[:, None, None, :] * depthwise
        got = answer(weight.copy())
        expect(_is_row(got, 2), "expected two arrays, depthwise and pointwise")
        shapes = tuple(np.shape(part) for part in got)
        wanted = (depthwise.shape, pointwise.shape)
        order = "; depthwise comes first" if shapes == wanted[::-1] else ""
        expect(shapes == wanted, f"expected the shapes {wanted}, got {shapes}{order}")
        case = "your depthwise times your pointwise"
        if zero is not None:
            case += f", where the pointwise weights {'of an output' if seed == 1 else 'of an input'} channel are zero"
        hints = ((..., "look at one input channel: its rows, (C_out, K*K), are all multiples of one filter"),)
        compare(got[1][:, None, None, :] * got[0], weight, case, hints)


# Chapter 2


def check_same_padding(answer: Answer) -> None:
    """Against the library's rule."""
    for size, kernel_size, stride, dilation in product((1, 2, 3, 7, 8, 9, 224, 225), (1, 2, 3, 5), (1, 2, 3), (1, 2)):
        wanted = pad_amounts(size, kernel_size, stride, dilation, "SAME")
        before, after = pad_amounts(size, kernel_size, stride, 1, "SAME")
        reach = (kernel_size - 1) * dilation + 1
        total, fewer = ((count - 1) * stride + reach - size for count in (-(-size // stride), size // stride))
        dense = f"with dilation {dilation} the window reaches over {reach} pixels"
        hints = (
            (wanted[::-1], "the odd zero comes after the pixels"),
            ((before, after), dense),
            ((dilation * before, dilation * after), dense),
            ((total // 2, total - total // 2), "there are never fewer than 0 zeros"),
            ((max(fewer, 0) // 2, -(-max(fewer, 0) // 2)), f"there are ceil({size} / {stride}) windows: round up"),
            (((kernel_size - 1) // 2,) * 2, "that is PyTorch's padding: SAME depends on size and stride"),
        )
        ask(answer, wanted, hints, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation)


def check_frameworks_agree(answer: Answer) -> None:
    """Against layer after layer of the library's rule."""
    for size, layers in product(range(1, 231), (1, 2, 5)):
        sizes = [-(-size // 2**layer) for layer in range(layers)]
        even = [rest for rest in sizes if pad_amounts(rest, 3, 2, 1, "SAME") != (1, 1)]
        zeros = f"(0, 1) around {even[0]}" if even else "(1, 1) around each"
        hints = ((..., f"the sizes on the way are {', '.join(map(str, sizes))}, and SAME puts {zeros}"),)
        ask(answer, not even, hints, size=size, layers=layers)


def check_pad_for_pytorch(answer: Answer) -> None:
    """Height and width differ, and so may their padding."""
    for height, width, kernel_size, stride in ((8, 9, 3, 2), (9, 8, 3, 2), (6, 6, 3, 1), (8, 7, 5, 2), (4, 5, 1, 2)):
        x = draw_integers(3, height, width, 2)
        rows, columns = (pad_amounts(size, kernel_size, stride, 1, "SAME") for size in (height, width))
        case = f"{height} x {width} pixels, kernel size {kernel_size}, stride {stride}"
        hints = ((..., f"SAME puts {rows} zeros above and below, {columns} on the left and right, none on channels"),)
        compare(answer(x.copy(), kernel_size, stride), np.pad(x, (rows, columns, (0, 0))), case, hints)


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
        shifts, steps, rest = [], [1], size
        for kernel_size, stride in zip(kernel_sizes, strides, strict=True):
            shifts.append((kernel_size - 1) // 2 - pad_amounts(rest, kernel_size, stride, 1, "SAME")[0])
            rest = -(-rest // stride)
            steps.append(steps[-1] * stride)
        wanted = sum(shift * step for shift, step in zip(shifts, steps, strict=False))
        parts = " + ".join(f"{shift} * {step}" for shift, step in zip(shifts, steps, strict=False))
        hints = ((-wanted, "with SAME the windows lie further"), (..., f"shifts of single layers, in pixels: {parts}"))
        ask(answer, wanted, hints, size=size, kernel_sizes=list(kernel_sizes), strides=list(strides))


# Chapter 3


def check_fold(answer: Answer) -> None:
    """By a window with and without folding."""
    weight, bias, x = draw_numbers(1, 5, 3, 3, 2), draw_numbers(2, 5), draw_numbers(3, 3, 3, 2)
    scale, shift, mean = draw_numbers(4, 5), draw_numbers(5, 5), draw_numbers(6, 5)
    variance, epsilon = np.array([0.0, 0.001, 0.1, 1.0, 9.0]), 0.001
    sums, factor = (x * weight).sum(axis=(1, 2, 3)), scale / np.sqrt(variance + epsilon)
    wanted = (sums + bias - mean) * factor + shift
    hints = (
        (sums + bias, NOTHING_FOLDED),
        ((sums - mean) * factor + shift, "the convolution's own bias goes through the batch norm, too"),
        ((sums - mean) * factor + shift + bias, "the convolution's own bias goes through the batch norm, too"),
        ((sums + bias - mean) * scale / np.sqrt(variance**2 + epsilon) + shift, "the variance is a square already"),
        ((sums + bias - mean) * scale / (variance + epsilon) + shift, "divide by the root of variance + epsilon"),
        ((sums + bias - mean) * scale / np.sqrt(variance + 1e-5) + shift, "epsilon is an argument, and here 0.001"),
    )
    got = answer(*(values.copy() for values in (weight, bias, scale, shift, mean, variance)), epsilon)
    expect(_is_row(got, 2), "expected two arrays, weight and bias")
    expect(np.shape(got[0]) == weight.shape, f"expected weights {weight.shape}, got {np.shape(got[0])}")
    compare((x * got[0]).sum(axis=(1, 2, 3)) + got[1], wanted, "a window's outputs", hints)


def check_idle_batch_norm(answer: Answer) -> None:
    """By sending numbers through it."""
    for channels, epsilon in ((1, 0.001), (3, 0.00001), (4, 0.5)):
        x = draw_numbers(7, 6, channels)
        got = answer(channels, epsilon)
        expect(_is_row(got, 4), "expected four arrays: scale, shift, mean, variance")
        shapes = [np.shape(part) for part in got]
        expect(shapes == [(channels,)] * 4, f"expected four arrays of {channels}, got the shapes {shapes}")
        scale, shift, mean, variance = got
        expect(bool((variance >= 0).all()), f"expected variances of at least 0, got {variance}")
        factor = scale / np.sqrt(variance + epsilon)
        line = f"your factor is {factor[0]:.6g} and your offset {(shift - mean * factor)[0]:.6g}, expected 1 and 0"
        compare((x - mean) * factor + shift, x, f"numbers sent through, epsilon {epsilon}", ((..., line),))


def check_fold_forwards(answer: Answer) -> None:
    """By pixels with and without folding."""
    factor, offset, weight, bias = draw_numbers(1, 4), draw_numbers(2, 4), draw_numbers(3, 6, 4), draw_numbers(4, 6)
    x = draw_numbers(5, 8, 4)
    got = answer(factor.copy(), offset.copy(), weight.copy(), bias.copy())
    expect(_is_row(got, 2), "expected two arrays, weight and bias")
    expect(np.shape(got[0]) == weight.shape, f"expected weights {weight.shape}, got {np.shape(got[0])}")
    sums = (x * factor) @ weight.T
    hints = (
        (x @ weight.T + bias, NOTHING_FOLDED),
        (sums + bias, "the offset reaches every output as well, through the weights"),
        (sums + bias + (weight * factor) @ offset, "the offset comes after the factor: it meets the plain weights"),
    )
    compare(x @ got[0].T + got[1], sums + weight @ offset + bias, "a pixel's outputs", hints)


def check_fold_twice(answer: Answer) -> None:
    """By a window that goes through four steps, and through one."""
    depthwise, pointwise, x = draw_numbers(1, 3, 3, 4), draw_numbers(2, 6, 4), draw_numbers(3, 3, 3, 4)
    factor, offset, out_factor, out_offset = (draw_numbers(4 + index, size) for index, size in enumerate((4, 4, 6, 6)))
    mixed, moved = pointwise @ ((x * depthwise).sum(axis=(0, 1)) * factor), pointwise @ offset
    wanted = (mixed + moved) * out_factor + out_offset
    hints = (
        (mixed * out_factor + moved + out_offset, "what the offset gives is multiplied by out_factor, too"),
        (
            mixed * out_factor + out_offset,
            "the offset between the layers reaches every output, through the pointwise weights",
        ),
        (mixed + moved + out_offset, "the second batch norm has a factor, too"),
    )
    got = answer(*(values.copy() for values in (depthwise, factor, offset, pointwise, out_factor, out_offset)))
    expect(_is_row(got, 2), "expected two arrays, weight and bias")
    expect(np.shape(got[0]) == (6, 3, 3, 4), f"expected weights (6, 3, 3, 4), got {np.shape(got[0])}")
    compare((x * got[0]).sum(axis=(1, 2, 3)) + got[1], wanted, "a window's outputs", hints)


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
        height, width, in_channels, out_channels, expand_ratio, stride = case
        inner, places = expand_ratio * in_channels, -(-height // stride) * -(-width // stride)
        expansion, rest = in_channels * inner, inner * (9 + out_channels)
        hints = (
            (
                places * (expansion + rest),
                "an expansion is there with expand_ratio above 1, and works on the input's pixels",
            ),
            (height * width * rest, "the depthwise convolution has the stride: fewer pixels come out"),
            (height * width * (expansion + rest), "the depthwise convolution has the stride: fewer pixels come out"),
            (height * width * expansion + places * rest, "a block with expand_ratio 1 has no expansion"),
        )
        ask(answer, wanted, hints, **dict(zip(names, case, strict=True)))


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
        hints = (
            (sum(n - 1 for _, _, n, _ in stages), "the first block of a stage adds, too, where size and channels stay"),
            (sum(n for _, _, n, _ in stages), "a block that changes size or channels cannot add its input"),
            (sum(n - 1 + (s == 1) for _, _, n, s in stages), "the number of channels must not change, either"),
        )
        ask(answer, wanted, hints, stages=list(stages), in_channels=in_channels)


def check_find_survivors(answer: Answer) -> None:
    """A point survives where the rows that are above zero span the space."""
    for seed, (count, dimensions) in enumerate(((2, 2), (3, 2), (5, 3), (5, 2))):
        points, matrix = draw_numbers(seed, 40, dimensions), draw_numbers(seed + 9, count, dimensions)
        if seed == 3:
            matrix[1:4] = matrix[0] * np.array([[2.0], [0.5], [3.0]])
            matrix[4] = matrix[0, 1], -matrix[0, 0]
        alive = points @ matrix.T > 0
        ranks = np.array([np.linalg.matrix_rank(matrix[row]) if row.any() else 0 for row in alive])
        wanted, got = ranks == dimensions, np.asarray(answer(points.copy(), matrix.copy()))
        expect(got.shape == wanted.shape, f"expected a truth value for each of {len(points)} points, got {got.shape}")
        case = f"{count} numbers for points in {dimensions} dimensions{', four in one direction' if seed == 3 else ''}"
        wrong = np.flatnonzero(got.astype(bool) != wanted)
        if wrong.size:
            first = wrong[0]
            left = (
                f"point {first} keeps {alive[first].sum()} numbers, whose rows of the matrix have rank {ranks[first]}"
            )
            expect(False, f"{case}: wrong about {wrong.size} of 40 points; {left}")


def check_recover(answer: Answer) -> None:
    """Only points that can be found are asked for."""
    for seed, (count, dimensions) in enumerate(((6, 2), (12, 3))):
        points, matrix = draw_numbers(seed, 60, dimensions), draw_numbers(seed + 9, count, dimensions)
        points = points[(points @ matrix.T > 0).sum(axis=1) >= dimensions]
        values = np.maximum(points @ matrix.T, 0)
        case = f"points in {dimensions} dimensions from {count} numbers"
        hints = ((..., "a zero says only that a number was not above it: solve for each point with the others alone"),)
        compare(answer(values, matrix.copy()), points, case, hints)


CHAPTERS: tuple[tuple[Check, ...], ...] = (
    (check_count_multiply_adds, check_fewest_channels, check_filter_depthwise, check_separate),
    (check_same_padding, check_frameworks_agree, check_pad_for_pytorch, check_find_shift),
    (check_fold, check_idle_batch_norm, check_fold_forwards, check_fold_twice),
    (check_count_block, check_count_residuals, check_find_survivors, check_recover),
)
