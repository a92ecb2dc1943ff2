"""Checks of the answers to chapters 5 to 7: sums as agreed, boxes, and bytes."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from judging import Answer, Array, Check, Hints, ask, compare, expect, give_hint

from minimobile_kernels import reference
from minimobile_kernels.reference import fma

# Chapter 5


def check_sum_as_agreed(answer: Answer) -> None:
    """Against the library's definition, by equality."""
    names = list(product(range(6), (300, 129, 128, 5, 1)))
    cases = [_draw_sum(*name) for name in names]
    got = [float(np.asarray(answer(x.copy(), weight.copy(), bias)).item()) for x, weight, bias in cases]
    found = [_relu6(_sum_in_blocks(*case)) for case in cases]
    known = (sentence for mistake, sentence in WRONG_SUMS if got == [mistake(*case) for case in cases])
    hint = next(known, "if it is nearly right, look at the order of the steps")
    for (seed, terms), wanted, value in zip(names, found, got, strict=True):
        expect(value == wanted, f"{terms} terms, seed {seed}: expected {wanted!r}, got {value!r}; {hint}")


def _draw_sum(seed: int, terms: int) -> tuple[Array, Array, np.float32]:
    random = np.random.default_rng(seed)
    x, weight = random.normal(size=(2, terms)).astype(np.float32)
    weight /= np.float32(np.sqrt(terms))  # so that ReLU6 seldom cuts
    return x, weight, np.float32(random.normal() + 2)


def _relu6(value: float) -> float:
    return min(max(value, 0.0), 6.0)


def _sum_in_blocks(x: Array, weight: Array, bias: np.float32, size: int = reference.BLOCK) -> float:
    return float(reference.pointwise_conv2d(x[None, None, None], weight[None], bias[None], size).item())


def _sum_unfused(x: Array, weight: Array, bias: np.float32) -> float:
    total = np.float32(0)
    for one, w in zip(x, weight, strict=True):
        total = total + one * w
    return float(total + bias)


def _sum_from_bias(x: Array, weight: Array, bias: np.float32) -> float:
    zero, total = np.float32(0), bias
    for first in range(0, len(x), reference.BLOCK):
        block = slice(first, first + reference.BLOCK)
        total = total + np.float32(_sum_in_blocks(x[block], weight[block], zero))
    return float(total)


WRONG_SUMS: tuple[tuple[Answer, str], ...] = (
    (_sum_in_blocks, "ReLU6 comes last"),
    (lambda *case: _relu6(_sum_unfused(*case)), "x * w rounds once more: use fma"),
    (lambda x, weight, bias: _relu6(_sum_in_blocks(x, weight, bias, len(x))), "after 128 terms a new block begins"),
    (lambda *case: _relu6(_sum_from_bias(*case)), "the bias comes after all blocks"),
    (
        lambda x, weight, bias: _relu6(float(np.float32(x.astype(np.float64) @ weight + bias))),
        "every step is rounded to float32, in the order of the terms",
    ),
)


def check_find_three_numbers(answer: Answer) -> None:
    """Any three will do but those of the text."""
    got = answer()
    expect(len(got) == 3 and all(isinstance(value, np.float32) for value in got), "expected three np.float32")
    expect(bool(np.isfinite(got).all()), "expected finite numbers")
    x, w, start = (np.array([value]) for value in got)
    expect(not x[0] == w[0] == np.float32(1 + 2**-12), "expected other numbers than those of the text")
    one, two = fma(x, w, start)[0], (x * w + start)[0]
    expect(
        bool(one != two and np.isfinite([one, two]).all()),
        f"both give {one!r}; float32 has to be too short for the product",
    )


def check_choose_tile(answer: Answer) -> None:
    """Against all tiles; where several are best, any of them."""
    for registers in (3, 8, 16, 32):
        loads = {
            (pixels, vectors): (pixels + vectors) / (pixels * vectors)
            for pixels, vectors in product(range(1, registers), repeat=2)
            if pixels * vectors + vectors + 1 <= registers
        }
        got = tuple(answer(registers))
        expect(len(got) == 2, f"expected (pixels, vectors), got {got!r}")
        needed = got[0] * got[1] + got[1] + 1
        expect(got in loads, f"{registers} registers: {got} needs {needed}, for its sums, its weights and a pixel")
        best = min(loads, key=lambda tile: loads[tile])
        more = f"{got} makes {loads[got]:.3f} loads per multiply-add, and the best tile {loads[best]:.3f}"
        expect(loads[got] == loads[best], f"{registers} registers: {more}; try all that fit")


def check_find_peak(answer: Answer) -> None:
    """A map lives in its first and in its last step, too."""
    for wanted, lives in (
        (12, [(5, 0, 1), (7, 1, 2), (4, 2, 3)]),
        (9, [(9, 0, 0), (4, 1, 4), (2, 2, 3), (3, 3, 4)]),
        (7, [(7, 3, 9)]),
        (14, [(4, 0, 9), (4, 1, 2), (5, 4, 5), (4, 5, 8), (1, 5, 5)]),
        (0, []),
    ):
        steps = {step: [size for size, first, last in lives if first <= step <= last] for _, step, _ in lives}
        full = max(steps, key=lambda step: sum(steps[step]), default=0)
        hints = ((..., f"at step {full} maps of {steps.get(full, [])} are alive: the last step of a map counts"),)
        ask(answer, wanted, hints, lives=list(lives))


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
        sizes = [(-(-height // 2**halvings), -(-width // 2**halvings)) for halvings in range(4, 10)]
        hints = ((..., f"the maps are {', '.join(f'{rows} x {columns}' for rows, columns in sizes)}"),)
        ask(answer, wanted, hints, height=height, width=width)


def check_encode_box(answer: Answer) -> None:
    """What decoding makes of the answer has to be the box."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        anchor = np.concatenate([random.uniform(0, 1, 2), random.uniform(0.05, 1, 2)])
        wanted = random.normal(0, 3, 4)
        middle, size = wanted[:2] / 10 * anchor[2:] + anchor[:2], np.exp(wanted[2:] / 5) * anchor[2:]
        box = np.concatenate([middle - size / 2, middle + size / 2])
        corner = (box[:2] - anchor[:2]) / anchor[2:] * 10
        hints = (
            (wanted / (10, 10, 5, 5), "the scales are missing: times 10, 10, 5, 5"),
            (wanted[[1, 0, 3, 2]], "the order is y, x, h, w"),
            (np.concatenate([wanted[:2], 5 * size / anchor[2:]]), "th and tw are logarithms"),
            (np.concatenate([wanted[:2], size / anchor[2:]]), "th and tw are logarithms, times 5"),
            (np.concatenate([corner, wanted[2:]]), "ty and tx are those of the box's middle, not of its corner"),
        )
        case = f"a box {np.round(box, 3)} at the anchor {np.round(anchor, 3)}"
        compare(answer(box.copy(), anchor.copy()), wanted, case, hints)


def check_measure_overlap(answer: Answer) -> None:
    """Boxes that overlap, touch, lie inside each other and apart, and some without area."""
    for wanted, first, second in (
        (1 / 7, (0, 0, 2, 2), (1, 1, 3, 3)), (0.0, (0, 0, 1, 1), (1, 0, 2, 1)), (0.0, (0, 0, 1, 1), (2, 2, 3, 3)),
        (0.25, (0, 0, 4, 4), (1, 1, 3, 3)), (1.0, (-1, -1, 1, 1), (-1, -1, 1, 1)), (0.0, (0, 0, 0, 1), (0, 0, 1, 1)),
        (0.0, (1, 1, 1, 1), (1, 1, 1, 1)), (0.0, (0, 0, 1, 1), (3, 0, 4, 1)),
    ):  # fmt: skip
        boxes = (np.array(first, np.float64), np.array(second, np.float64))
        got = float(answer(*boxes))
        sides = np.minimum(boxes[0][2:], boxes[1][2:]) - np.maximum(boxes[0][:2], boxes[1][:2])
        areas = [float((box[2:] - box[:2]).prod()) for box in boxes]
        shared, unclipped = float(np.maximum(sides, 0).prod()), float(sides.prod())
        hints: Hints = [(..., "boxes without area overlap nothing: there is nothing to divide by")]
        if min(areas) > 0:
            hints = [
                (shared / sum(areas), "the union counts what both share once, not twice"),
                (shared / min(areas), "over the area of the union, not of the smaller box"),
                (unclipped / (sum(areas) - unclipped), "apart, boxes share nothing: a side is never below 0"),
            ]
        is_right = abs(got - wanted) < 1e-12
        expect(is_right, f"for {first} and {second} expected {wanted:.4g}, got {got:.4g}{give_hint(got, hints)}")


def check_suppress_by_class(answer: Answer) -> None:
    """Against a slow one: boxes that overlap by the threshold itself, then random ones of two classes."""
    half = np.array([(0, 0, 1, 1), (0, 0, 1, 0.5), (0, 0, 0.75, 1)], np.float64)  # the first overlaps by 0.5 and 0.75
    _compare_suppression(
        answer, half, np.zeros(3, np.int64), np.array([0.9, 0.8, 0.7]), 0.5, "boxes that overlap by 0.5"
    )
    for seed in range(20):
        random = np.random.default_rng(seed)
        low = random.uniform(0, 1, (16, 2))
        boxes = np.concatenate([low, low + random.uniform(0.3, 0.8, (16, 2))], axis=1)
        labels, scores = random.integers(0, 2, 16), random.permutation(16) / 16
        _compare_suppression(answer, boxes, labels, scores, 0.2, f"16 boxes of seed {seed}")


def _compare_suppression(
    answer: Answer, boxes: Array, labels: Array, scores: Array, threshold: float, case: str
) -> None:
    got = [int(row) for row in answer(boxes.copy(), labels.copy(), scores.copy(), threshold)]
    wanted = _suppress(boxes, labels, scores, threshold)
    hints = (
        (_suppress(boxes, 0 * labels, scores, threshold), "only boxes of one label suppress each other"),
        (_suppress(boxes, labels, -scores, threshold), "the best score comes first"),
        (sorted(wanted), "the best score comes first in what is returned, too"),
        (np.argsort(-scores), "nothing has been suppressed"),
        (_suppress(boxes, labels, scores, threshold, by_all=True), "a box that has gone itself suppresses no other"),
        (_suppress(boxes, labels, scores, threshold - 1e-9), "a box goes that overlaps by more than the threshold"),
    )
    expect(
        got == wanted, f"{case}, threshold {threshold}: expected the rows {wanted}, got {got}{give_hint(got, hints)}"
    )


def _suppress(boxes: Array, labels: Array, scores: Array, threshold: float, by_all: bool = False) -> list[int]:
    """Return the rows kept, by a box's overlap with those kept before, or `by_all` with all of better scores."""
    kept: list[int] = []
    rivals: list[int] = []
    for row in map(int, np.argsort(-scores)):
        overlaps = [_share(boxes[other], boxes[row]) for other in rivals if labels[other] == labels[row]]
        is_kept = all(overlap <= threshold for overlap in overlaps)
        kept += [row] * is_kept
        rivals += [row] * (is_kept or by_all)
    return kept


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
        (-5.0, 1.0, 2),
    ):
        least, most = min(low, 0.0), max(high, 0.0)
        scale = (most - least) / (2**bits - 1)
        got = answer(low, high, bits)
        wanted = (scale, int(np.floor(-least / scale + 0.5)))
        wide, wrong = (most - least) / 2**bits, (high - low) / (2**bits - 1)
        hints = (
            ((wide, np.floor(-least / wide + 0.5)), f"between {2**bits} numbers there are {2**bits - 1} steps"),
            ((scale * (2**bits - 1) / 255, wanted[1]), f"{bits} bits are {2**bits} numbers"),
            ((wrong, np.floor(-low / wrong + 0.5)), "the range has to contain 0: widen it first"),
            (
                (wrong, 0),
                "zero is the step that stands for 0, -low / scale" if low < 0 else "widen the range to 0 first",
            ),
            ((scale, 0), "zero is the step that stands for 0, -low / scale"),
            ((scale, int(-least / scale)), "-low / scale is rounded to the nearest, halves up"),
            ((scale, -wanted[1]), "zero is -low / scale: not below 0"),
        )
        is_right = len(got) == 2 and abs(got[0] - wanted[0]) < 1e-12 and got[1] == wanted[1]
        case = f"for low={low}, high={high}, bits={bits}"
        expect(is_right, f"{case} expected {wanted!r}, got {got!r}{give_hint(got, hints)}")


def check_expect_clipped(answer: Answer) -> None:
    """Against fine sums over the distribution."""
    for mean, deviation in ((0.0, 1.0), (2.0, 0.5), (-1.0, 2.0), (-3.0, 1.0), (0.3, 4.0)):
        z = (np.arange(-80_000, 80_000) + 0.5) / 10_000
        share = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / 10_000
        wanted = float((np.maximum(mean + deviation * z, 0) * share).sum())
        got = float(answer(mean, deviation))
        ratio = mean / deviation
        above, density = 0.5 * (1 + math.erf(ratio / math.sqrt(2))), math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        hints = (
            (max(mean, 0.0), "the mean of max(x, 0) is not max(mean, 0): values on both sides of 0 count"),
            (mean * above, "those above 0 have a higher mean than all: the density at mean / deviation counts as well"),
            (mean * above + density, "the part of the density is multiplied by the deviation"),
            (mean * above + deviation * density * math.sqrt(2 * math.pi), "the density has 1 / sqrt(2 * pi) in front"),
        )
        is_right = abs(got - wanted) < 1e-5
        case = f"for mean={mean}, deviation={deviation}"
        expect(is_right, f"{case} expected {wanted:.6f}, got {got:.6f}{give_hint(got, hints)}")


def check_correct_bias(answer: Answer) -> None:
    """The mean of the outputs has to be what it was."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        weight, bias, x = random.normal(0, 1, (3, 4)), random.normal(0, 1, 3), random.uniform(0, 6, (50, 4))
        rounded = np.rint(weight * 3) / 3
        wanted = (x @ weight.T + bias).mean(0) - (x @ rounded.T).mean(0)
        hints = (
            (bias, "the bias has to make up for what rounding the weights adds to the mean"),
            (2 * bias - wanted, "the other way round: take off what rounding adds"),
            (bias - (rounded - weight).sum(1), "each weight's error meets the mean of its own input"),
        )
        got = answer(weight.copy(), rounded.copy(), bias.copy(), x.mean(0))
        compare(got, wanted, f"weights of seed {seed}", hints)


def check_equalize(answer: Answer) -> None:
    """Random layers, some with dead channels."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        first, second = random.normal(0, 1, (4, 3)), random.normal(0, 2, (5, 4))
        if seed % 2:
            first[seed % 4], second[:, (seed + 1) % 4] = 0, 0
        before, after = np.abs(first).max(1), np.abs(second).max(0)
        is_dead = (before == 0) | (after == 0)
        ratio = np.where(is_dead, 1, before / np.where(is_dead, 1, after))
        wanted = np.sqrt(ratio)
        hints: Hints = (
            (ratio, "s works twice, on the channel and on who reads it: take the root"),
            (1 / wanted, "the other way round: first is divided by s, second multiplied"),
            (np.ones(4), "first / s[:, None] and second * s have to reach equally far"),
        )
        if is_dead.any():
            hints = (*hints, (..., f"channels {np.flatnonzero(is_dead).tolist()} are dead on one side: 1"))
        compare(answer(first.copy(), second.copy()), wanted, f"layers of seed {seed}", hints)


CHAPTERS: tuple[tuple[Check, ...], ...] = (
    (check_sum_as_agreed, check_find_three_numbers, check_choose_tile, check_find_peak),
    (check_count_anchors, check_encode_box, check_measure_overlap, check_suppress_by_class),
    (check_choose_bytes, check_expect_clipped, check_correct_bias, check_equalize),
)
