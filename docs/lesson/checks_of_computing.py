"""Checks of the answers to chapters 5 to 7: sums as agreed, boxes, and bytes."""

from __future__ import annotations

from itertools import product

import numpy as np
from judging import Answer, Array, Check, ask, compare, expect

from minimobile_kernels import reference
from minimobile_kernels.reference import fma

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


CHAPTERS: tuple[tuple[Check, ...], ...] = (
    (check_sum_as_agreed, check_find_three_numbers, check_choose_tile, check_find_peak),
    (check_count_anchors, check_encode_box, check_measure_overlap, check_suppress_by_class),
    (check_choose_bytes, check_expect_clipped, check_correct_bias, check_equalize),
)
