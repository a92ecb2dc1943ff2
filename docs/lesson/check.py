"""Say which of the answers to the lesson's exercises are right.

`python docs/lesson/check.py` looks at all answers in exercises.py, `check.py 2` at those of chapter 2, and `check.py
mine.py` at another file. The exit code is 0 when all are right.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels import reference
from minimobile_kernels.geometry import pad_amounts, window
from minimobile_kernels.reference import fma

Answer: TypeAlias = Callable[..., Any]
Array: TypeAlias = NDArray[Any]


class WrongAnswerError(Exception):
    """What is wrong with an answer, in one sentence for its author."""


def expect(is_right: bool, sentence: str) -> None:
    """Raise WrongAnswerError with the sentence unless `is_right`."""
    if not is_right:
        raise WrongAnswerError(sentence)


def ask(answer: Answer, wanted: object, **arguments: object) -> None:
    """Call the answer and compare what it returns, a number, a truth value or a tuple of these."""
    case = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    got = answer(**arguments)
    is_same = bool(np.shape(got) == np.shape(wanted) and np.all(np.asarray(got) == np.asarray(wanted)))
    expect(is_same, f"for {case} expected {wanted!r}, got {got!r}")


def compare(got: object, wanted: Array, case: str) -> None:
    """Compare an array with the wanted one, but for rounding in float64."""
    expect(isinstance(got, np.ndarray), f"{case}: expected an array, got {type(got).__name__}")
    values = np.asarray(got)
    expect(values.shape == wanted.shape, f"{case}: expected the shape {wanted.shape}, got {values.shape}")
    expect(bool(np.isfinite(values).all()), f"{case}: expected numbers, got NaN or infinity")
    difference = np.abs(values - wanted)
    if difference.size and difference.max() > 1e-9 * max(1.0, float(np.abs(wanted).max())):
        place = tuple(int(index) for index in np.unravel_index(difference.argmax(), difference.shape))
        expect(False, f"{case}: at {place} expected {wanted[place]:.6g}, got {values[place]:.6g}")


def draw_integers(seed: int, *shape: int) -> Array:
    """Return small whole numbers as float64."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def draw_numbers(seed: int, *shape: int) -> Array:
    """Return normally distributed float64."""
    return np.random.default_rng(seed).normal(size=shape)


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


# Chapter 5


def check_sum_as_agreed(answer: Answer) -> None:
    """Against the library's definition, by equality."""
    for seed, terms in product(range(6), (1, 5, 128, 129, 300)):
        random = np.random.default_rng(seed)
        x, weight = random.normal(size=(2, terms)).astype(np.float32)
        weight /= np.float32(np.sqrt(terms))  # so that ReLU6 seldom cuts
        bias = np.float32(random.normal() + 2)
        total = reference.pointwise_conv2d(x[None, None, None], weight[None], bias[None])
        wanted = np.clip(total, np.float32(0), np.float32(6)).item()
        got = float(np.asarray(answer(x.copy(), weight.copy(), bias)).item())
        expect(got == wanted, f"{terms} terms, seed {seed}: expected {wanted!r}, got {got!r}")


def check_find_three_numbers(answer: Answer) -> None:
    """Any three will do but those of the text."""
    got = answer()
    expect(len(got) == 3 and all(isinstance(value, np.float32) for value in got), "expected three np.float32")
    expect(bool(np.isfinite(got).all()), "expected finite numbers")
    x, w, start = (np.array([value]) for value in got)
    expect(not x[0] == w[0] == np.float32(1 + 2**-12), "expected other numbers than those of the text")
    one, two = fma(x, w, start)[0], (x * w + start)[0]
    expect(bool(one != two and np.isfinite([one, two]).all()), f"both give {one!r}")


def check_choose_tile(answer: Answer) -> None:
    """Against all tiles; where several are best, any of them."""
    for registers in (3, 8, 16, 32):
        loads = {
            (pixels, vectors): (pixels + vectors) / (pixels * vectors)
            for pixels, vectors in product(range(1, registers), repeat=2)
            if pixels * vectors + vectors + 1 <= registers
        }
        got = tuple(answer(registers))
        expect(got in loads, f"{registers} registers do not suffice for {got}")
        best = min(loads, key=lambda tile: loads[tile])
        expect(loads[got] == loads[best], f"{registers} registers: {got} needs {loads[got]:.3f}, it can be less")


def check_find_peak(answer: Answer) -> None:
    """A map lives in its first and in its last step, too."""
    for wanted, lives in (
        (12, [(5, 0, 1), (7, 1, 2), (4, 2, 3)]),
        (9, [(9, 0, 0), (4, 1, 4), (2, 2, 3), (3, 3, 4)]),
        (7, [(7, 3, 9)]),
        (14, [(4, 0, 9), (4, 1, 2), (5, 4, 5), (4, 5, 8), (1, 5, 5)]),
        (0, []),
    ):
        ask(answer, wanted, lives=list(lives))


# Chapter 6


def check_count_anchors(answer: Answer) -> None:
    """Against the sizes of TensorFlow's own graphs, and pictures that are not square."""
    for wanted, height, width in (
        (1917, 300, 300),
        (2034, 320, 320),
        (1014, 224, 224),
        (540, 160, 160),
        (972, 192, 256),
    ):
        ask(answer, wanted, height=height, width=width)


def check_encode_box(answer: Answer) -> None:
    """What decoding makes of the answer has to be the box."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        anchor = np.concatenate([random.uniform(0, 1, 2), random.uniform(0.05, 1, 2)])
        wanted = random.normal(0, 3, 4)
        middle, size = wanted[:2] / 10 * anchor[2:] + anchor[:2], np.exp(wanted[2:] / 5) * anchor[2:]
        box = np.concatenate([middle - size / 2, middle + size / 2])
        compare(
            answer(box.copy(), anchor.copy()), wanted, f"a box {np.round(box, 3)} at the anchor {np.round(anchor, 3)}"
        )


def check_measure_overlap(answer: Answer) -> None:
    """Boxes that overlap, touch, lie inside each other and apart, and some without area."""
    for wanted, first, second in (
        (1 / 7, (0, 0, 2, 2), (1, 1, 3, 3)), (0.0, (0, 0, 1, 1), (1, 0, 2, 1)), (0.0, (0, 0, 1, 1), (2, 2, 3, 3)),
        (0.25, (0, 0, 4, 4), (1, 1, 3, 3)), (1.0, (-1, -1, 1, 1), (-1, -1, 1, 1)), (0.0, (0, 0, 0, 1), (0, 0, 1, 1)),
        (0.0, (1, 1, 1, 1), (1, 1, 1, 1)), (0.0, (0, 0, 1, 1), (3, 0, 4, 1)),
    ):  # fmt: skip
        boxes = (np.array(first, np.float64), np.array(second, np.float64))
        got = float(answer(*boxes))
        expect(abs(got - wanted) < 1e-12, f"for {first} and {second} expected {wanted:.4g}, got {got:.4g}")


def check_suppress_by_class(answer: Answer) -> None:
    """Against a slow one, on random boxes of few classes."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        low = random.uniform(0, 1, (12, 2))
        boxes = np.concatenate([low, low + random.uniform(0.2, 0.8, (12, 2))], axis=1)
        labels, scores = random.integers(0, 3, 12), random.permutation(12) / 12
        wanted: list[int] = []
        for row in np.argsort(-scores):
            rivals = [other for other in wanted if labels[other] == labels[row]]
            if all(_share(boxes[other], boxes[row]) <= 0.3 for other in rivals):
                wanted.append(int(row))
        got = [int(row) for row in answer(boxes.copy(), labels.copy(), scores.copy(), 0.3)]
        expect(got == wanted, f"12 boxes of seed {seed}: expected the rows {wanted}, got {got}")


def _share(first: Array, second: Array) -> float:
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.maximum(sides, 0).prod())
    return shared / (float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod()) - shared)


# Chapter 7


def check_choose_bytes(answer: Answer) -> None:
    """Ranges around zero, on one side of it and away from it, in several widths."""
    for low, high, bits in (
        (0.0, 6.0, 8),
        (-1.0, 3.0, 8),
        (2.0, 5.0, 4),
        (-7.0, -1.0, 8),
        (-1.0, 1.0, 2),
        (-3.0, 0.5, 6),
    ):
        least, most = min(low, 0.0), max(high, 0.0)
        scale = (most - least) / (2**bits - 1)
        got = answer(low, high, bits)
        wanted = (scale, int(np.floor(-least / scale + 0.5)))
        is_right = len(got) == 2 and abs(got[0] - wanted[0]) < 1e-12 and got[1] == wanted[1]
        expect(is_right, f"for low={low}, high={high}, bits={bits} expected {wanted!r}, got {got!r}")


def check_expect_clipped(answer: Answer) -> None:
    """Against fine sums over the distribution."""
    for mean, deviation in ((0.0, 1.0), (2.0, 0.5), (-1.0, 2.0), (-3.0, 1.0), (0.3, 4.0)):
        z = (np.arange(-80_000, 80_000) + 0.5) / 10_000
        share = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / 10_000
        wanted = float((np.maximum(mean + deviation * z, 0) * share).sum())
        got = float(answer(mean, deviation))
        expect(abs(got - wanted) < 1e-5, f"for mean={mean}, deviation={deviation} expected {wanted:.6f}, got {got:.6f}")


def check_correct_bias(answer: Answer) -> None:
    """The mean of the outputs has to be what it was."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        weight, bias, x = random.normal(0, 1, (3, 4)), random.normal(0, 1, 3), random.uniform(0, 6, (50, 4))
        rounded = np.rint(weight * 3) / 3
        wanted = (x @ weight.T + bias).mean(0) - (x @ rounded.T).mean(0)
        compare(answer(weight.copy(), rounded.copy(), bias.copy(), x.mean(0)), wanted, f"weights of seed {seed}")


def check_equalize(answer: Answer) -> None:
    """Random layers, some with dead channels."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        first, second = random.normal(0, 1, (4, 3)), random.normal(0, 2, (5, 4))
        if seed % 2:
            first[seed % 4], second[:, (seed + 1) % 4] = 0, 0
        before, after = np.abs(first).max(1), np.abs(second).max(0)
        is_dead = (before == 0) | (after == 0)
        wanted = np.where(is_dead, 1, np.sqrt(before / np.where(is_dead, 1, after)))
        compare(answer(first.copy(), second.copy()), wanted, f"layers of seed {seed}")


CHAPTERS: tuple[tuple[Callable[[Answer], None], ...], ...] = (
    (check_count_multiply_adds, check_fewest_channels, check_filter_depthwise, check_separate),
    (check_same_padding, check_frameworks_agree, check_pad_for_pytorch, check_find_shift),
    (check_fold, check_idle_batch_norm, check_fold_forwards, check_fold_twice),
    (check_count_block, check_count_residuals, check_find_survivors, check_recover),
    (check_sum_as_agreed, check_find_three_numbers, check_choose_tile, check_find_peak),
    (check_count_anchors, check_encode_box, check_measure_overlap, check_suppress_by_class),
    (check_choose_bytes, check_expect_clipped, check_correct_bias, check_equalize),
)


class Verdict(NamedTuple):
    """What became of one exercise."""

    number: str
    name: str
    is_right: bool
    sentence: str


def judge(answers: object, chapters: list[int]) -> Iterator[Verdict]:
    """Yield a verdict for every exercise of the chapters; `answers` has a function of each one's name."""
    for chapter in chapters:
        for index, check in enumerate(CHAPTERS[chapter - 1], 1):
            name = check.__name__.removeprefix("check_")
            try:
                check(getattr(answers, name))
                sentence = "right"
            except NotImplementedError:
                sentence = "not done yet"
            except WrongAnswerError as wrong:
                sentence = f"wrong: {wrong}"
            except Exception as error:  # the answer is somebody's first try: anything may happen in it
                sentence = f"stops with {type(error).__name__}: {error}"
            yield Verdict(f"{chapter}.{index}", name, sentence == "right", sentence)


def read_answers(path: Path) -> object:
    """Run a file of answers and return it as a module."""
    spec = importlib.util.spec_from_file_location("answers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(words: list[str]) -> int:
    """Print the verdicts on the chapters and the file given; the exit code is 0 if all are right."""
    chapters = [int(word) for word in words if word.isdigit()] or list(range(1, len(CHAPTERS) + 1))
    files = [Path(word) for word in words if word.endswith(".py")] or [Path(__file__).with_name("exercises.py")]
    verdicts = list(judge(read_answers(files[0]), chapters))
    for verdict in verdicts:
        print(f"{verdict.number}  {verdict.name:20} {verdict.sentence}")
    return 0 if all(verdict.is_right for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
