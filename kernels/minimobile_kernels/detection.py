"""From a detector's raw outputs to detections, in one native call. Defined by `reference_detection.py`, the same bits.

How boxes of one class are suppressed is in `suppression.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from minimobile_kernels import maps  # noqa: F401  # which tells the compiler of elementwise's functions
from minimobile_kernels._jit import compiled
from minimobile_kernels.detection_rules import BLOCK, CLASS, SCORE
from minimobile_kernels.exponentials import raise_first
from minimobile_kernels.largest import largest
from minimobile_kernels.reference_detection import partial_sort, settle_heap
from minimobile_kernels.suppression import AREA, BEST, KEY, XMAX, XMIN, YMAX, YMIN, sink, suppress

for _function in (settle_heap, partial_sort):
    register_jitable(_function)

LIKELY, SPARE = 4, 32
"""So many anchors for each detection, and some more, are looked at first class by class."""


def detect(
    encodings: Any, scores: Any, anchors: Any, rules: Any, work: Any, order: Any, out: Any, count: Any
) -> None:  # fmt: skip
    """Decode boxes and choose detections. Defined by reference_detection.decode_boxes and .detect.

    Shapes: encodings (N, 4), scores (N * (label_offset + num_classes)), anchors (N, 4), rules (1) of
    `detection_rules.RULES`; work and order: as `detection_rules.work_sizes` says; out (M, 6): rows of a box, its class
    and its score, written up to the number found; count (2): how many were found, and the first row whose box has a
    negative size, or -1: then nothing was found.
    """
    _detect(encodings, scores, anchors, rules[0], work, order, out, count)


def detect_bytes(
    encodings: Any, scores: Any, numbers: Any, anchors: Any, rules: Any, work: Any, order: Any, out: Any, count: Any
) -> None:  # fmt: skip
    """Do the same with predictions in bytes, of which a greater one is a greater score.

    Scores are but compared with each other and with the threshold, so that only those found become numbers.

    Shapes: encodings and scores as for `detect`, uint8; numbers (2, 256): what each byte of encodings stands for, and
    of scores; rules: their threshold is that of bytes; the rest as for `detect`.
    """
    rule = rules[0]
    for row in range(encodings.shape[0]):
        for column in range(4):
            work[row, column] = numbers[0, encodings[row, column]]
    _detect(work, scores, anchors, rule, work, order, out, count)
    each, distance = 1, 1
    if not rule.is_by_class:
        each, distance = min(rule.max_classes_per_detection, rule.num_classes), rule.max_classes_per_detection
    for index in range(count[0]):
        for rank in range(each):
            row = index * distance + rank
            out[row, SCORE] = numbers[1, np.int64(out[row, SCORE])]


@compiled
def _detect(
    encodings: Any, scores: Any, anchors: Any, rule: Any, work: Any, order: Any, out: Any, count: Any
) -> None:  # fmt: skip
    count[0], count[1] = 0, _decode(encodings, anchors, rule, work, order)
    if count[1] >= 0:
        return
    if rule.is_by_class:
        count[0] = _detect_by_class(scores, rule, work, order, out)
    else:
        count[0] = _detect_by_anchor(scores, rule, work, order, out)


def sigmoid_scores(logits: Any, powers: Any, out: Any) -> None:
    """Return 1 / (1 + e**-x), computed in float64 and rounded once. Defined by elementwise.sigmoid.

    Shapes: logits, out: one-dimensional, of one size; powers: (2 * `BLOCK`), whatever it holds.
    """
    values = powers.view(np.float64)[BLOCK:]
    for start in range(0, logits.shape[0], BLOCK):
        count = min(BLOCK, logits.shape[0] - start)
        for index in range(count):
            values[index] = -np.float64(logits[start + index])
        raise_first(values, powers, count)
        for index in range(count):
            out[start + index] = np.float32(1.0 / (1.0 + values[index]))


@compiled
def _decode(encodings: Any, anchors: Any, rule: Any, work: Any, order: Any) -> int:
    """Write the box and the area of every anchor; return the first row with a negative size, or -1.

    The encodings may lie in the first four columns of `work`: each is read before it is written over.
    """
    count, fault = encodings.shape[0], -1
    powers, bits = order.view(np.float64), order[2 * count :]
    for axis in range(2):
        growth = rule.h_scale if axis == 0 else rule.w_scale
        own = powers[axis * count :]
        for row in range(count):
            code = encodings[row, 2 + axis]
            own[row] = np.float64(code / growth) if rule.is_tensorflow else np.float64(code) / np.float64(growth)
        raise_first(own, bits, count)
    for row in range(count):
        for axis in range(2):
            scale, power = rule.y_scale if axis == 0 else rule.x_scale, powers[axis * count + row]
            centre, size = anchors[row, axis], anchors[row, 2 + axis]
            if rule.is_tensorflow:
                middle = encodings[row, axis] / scale * size + centre
                reach = np.float32(power) * size * np.float32(0.5)
            else:
                middle = np.float32(
                    np.float64(encodings[row, axis]) / np.float64(scale) * np.float64(size) + np.float64(centre)
                )
                reach = np.float32(0.5 * power * np.float64(size))
            work[row, YMIN + axis], work[row, YMAX + axis] = middle - reach, middle + reach
        height, width = work[row, YMAX] - work[row, YMIN], work[row, XMAX] - work[row, XMIN]
        work[row, AREA] = height * width
        if fault < 0 and (work[row, YMIN] > work[row, YMAX] or work[row, XMIN] > work[row, XMAX]):
            fault = row
    return fault


@compiled
def _detect_by_anchor(scores: Any, rule: Any, work: Any, order: Any, out: Any) -> Any:
    anchors, first = work.shape[0], rule.label_offset
    each, columns = min(rule.max_classes_per_detection, rule.num_classes), rule.label_offset + rule.num_classes
    filled = 0
    for row in range(anchors):
        best = largest(scores, row * columns + first, rule.num_classes)
        work[row, KEY] = best
        if _is_allowed(best, rule):
            order[filled] = row
            filled += 1
    found = suppress(work, order, filled, rule, rule.max_detections, out, 0)
    places = order[3 * anchors :]
    for index in range(found):
        row = order[anchors + index]
        start = row * columns + first
        if each == 1:
            place = 0
            while scores[start + place] != work[row, KEY]:
                place += 1
            places[0] = place
        else:
            partial_sort(scores, places, start, each, rule.num_classes)
        for rank in range(each):
            target = index * rule.max_classes_per_detection + rank
            _write(out, target, work, row, places[rank], scores[start + places[rank]])
    return found


@compiled
def _detect_by_class(scores: Any, rule: Any, work: Any, order: Any, out: Any) -> Any:
    rows = _list_best(scores, rule, work, order)
    found = _detect_likely(scores, rule, work, order, out, rows)
    if found < 0:
        rows = _list_best(scores, rule, work, order)
        found = _detect_among_all(scores, rule, work, order, out, rows)
    if rule.is_tensorflow:
        for index in range(found):
            for side in range(4):
                out[index, side] = _inside(out[index, side])
    return found


@compiled
def _list_best(scores: Any, rule: Any, work: Any, order: Any) -> Any:
    """Write the rows, and the best score of each, of those that are allowed; return how many there are."""
    columns, filled = rule.label_offset + rule.num_classes, 0
    for row in range(work.shape[0]):
        work[row, BEST] = largest(scores, row * columns + rule.label_offset, rule.num_classes)
        work[row, KEY] = work[row, BEST]
        if _is_allowed(work[row, BEST], rule):
            order[filled] = row
            filled += 1
    return filled


@compiled
def _detect_likely(scores: Any, rule: Any, work: Any, order: Any, out: Any, rows: int) -> int:
    """Choose among the best scores alone; return how many detections that gives, or -1 where it does not decide them.

    It does if the list is full: a score below those looked at can neither enter it nor suppress what did. In COCO's
    photographs 149 to 352 anchors have a score as good as the last of 100.
    """
    most = LIKELY * rule.max_detections + SPARE
    if rows <= most:
        return -1
    picked = _pick_best(work, order, rows, most)
    anchors, found, first = work.shape[0], 0, 0
    ends, candidates = order[3 * anchors :], order[3 * anchors + rule.num_classes :]
    if not _sort_likely(scores, rule, work, order, picked):
        return -1
    for number in range(rule.num_classes):
        filled = 0
        for index in range(first, ends[number]):
            row = candidates[index]
            score = scores[row * (rule.label_offset + rule.num_classes) + rule.label_offset + number]
            if found < rule.max_detections or score > out[found - 1, SCORE]:
                work[row, KEY] = score
                order[filled] = row
                filled += 1
        first = ends[number]
        found = _enter_class(work, order, filled, number, rule, out, found)
    return found if found == rule.max_detections else -1


@compiled
def _pick_best(work: Any, order: Any, rows: int, most: int) -> int:
    """Move the `most` rows with the best scores, and those as good as the last, to `live`; return how many they are."""
    live = order[2 * work.shape[0] :]
    for hole in range(rows // 2 - 1, -1, -1):
        sink(work, order, hole, rows)
    picked = 0
    while picked < rows and (picked < most or work[order[0], KEY] == work[live[picked - 1], KEY]):
        live[picked] = order[0]
        picked += 1
        order[0] = order[rows - picked]
        sink(work, order, 0, rows - picked)
    return picked


@compiled
def _sort_likely(scores: Any, rule: Any, work: Any, order: Any, picked: int) -> bool:
    """Sort the scores that are no worse than the best of the last row picked, by class: the rows of each.

    Those of class c end at entry c of `order`'s fourth part, and lie behind that part. False if there is no room.
    """
    anchors, columns = work.shape[0], rule.label_offset + rule.num_classes
    live, ends = order[2 * anchors :], order[3 * anchors :]
    candidates = order[3 * anchors + rule.num_classes :]
    least = work[live[picked - 1], BEST]
    for number in range(rule.num_classes):
        ends[number] = 0
    total = 0
    for index in range(picked):
        start = live[index] * columns + rule.label_offset
        for number in range(rule.num_classes):
            is_likely = scores[start + number] >= least
            ends[number] += is_likely
            total += is_likely
    if total > anchors:
        return False
    before = 0
    for number in range(rule.num_classes):  # where each class begins: filling it moves that to its end
        before, ends[number] = before + ends[number], before
    for index in range(picked):
        start = live[index] * columns + rule.label_offset
        for number in range(rule.num_classes):
            if scores[start + number] >= least:
                candidates[ends[number]] = live[index]
                ends[number] += 1
    return True


@compiled
def _detect_among_all(scores: Any, rule: Any, work: Any, order: Any, out: Any, rows: int) -> Any:
    anchors, found, columns = work.shape[0], 0, rule.label_offset + rule.num_classes
    live = order[2 * anchors :]
    for index in range(rows):
        live[index] = order[index]
    for number in range(rule.num_classes):
        # What is no better than the last of a full list can neither enter it nor suppress what does.
        is_full = found == rule.max_detections
        if is_full:
            rows = _drop_hopeless(work, live, rows, out[found - 1, SCORE])
        filled = 0
        for index in range(rows):
            row = live[index]
            score = scores[row * columns + rule.label_offset + number]
            if _is_allowed(score, rule) and not (is_full and score <= out[found - 1, SCORE]):
                work[row, KEY] = score
                order[filled] = row
                filled += 1
        found = _enter_class(work, order, filled, number, rule, out, found)
    return found


@compiled
def _enter_class(work: Any, order: Any, filled: int, number: int, rule: Any, out: Any, found: int) -> int:
    """Suppress the rows of a class, and merge what is left into the list; return the length of the list."""
    if filled == 0:
        return found
    limit = rule.detections_per_class
    if rule.is_tensorflow:
        kept = _drop_outside(work, order, suppress(work, order, filled, rule, limit, out, 0))
    else:
        full = found if found == rule.max_detections else 0
        kept = suppress(work, order, filled, rule, min(limit, rule.max_detections), out, full)
    length: int = _merge(work, order, kept, number, rule, out, found)
    return length


@compiled
def _drop_hopeless(work: Any, live: Any, rows: int, last: float) -> int:
    """Drop the rows of which no score is better than the last of a full list; return how many are left."""
    left = 0
    for index in range(rows):
        if work[live[index], BEST] > last:
            live[left] = live[index]
            left += 1
    return left


@compiled
def _merge(work: Any, order: Any, kept: int, number: int, rule: Any, out: Any, found: int) -> int:
    """Merge a class's rows into the list by score, what is there already first; return the length of the list."""
    anchors = work.shape[0]
    old, new = 0, 0
    while old + new < rule.max_detections and old + new < found + kept:
        if new == kept or (old < found and out[old, SCORE] >= work[order[anchors + new], KEY]):
            old += 1
        else:
            new += 1
    total = old + new
    for target in range(total - 1, -1, -1):
        if new > 0 and (old == 0 or out[old - 1, SCORE] >= work[order[anchors + new - 1], KEY]):
            new -= 1
            row = order[anchors + new]
            _write(out, target, work, row, number, work[row, KEY])
        else:
            old -= 1
            for column in range(6):
                out[target, column] = out[old, column]
    return total


@compiled
def _write(out: Any, target: int, work: Any, row: int, number: int, score: float) -> None:
    for side in range(4):
        out[target, side] = work[row, side]
    out[target, CLASS], out[target, SCORE] = np.float32(number), score


@compiled
def _drop_outside(work: Any, order: Any, kept: int) -> int:
    """Drop the rows of which nothing lies inside the picture; return how many are left."""
    anchors, left = work.shape[0], 0
    for index in range(kept):
        row = order[anchors + index]
        height = _inside(work[row, YMAX]) - _inside(work[row, YMIN])
        if height * (_inside(work[row, XMAX]) - _inside(work[row, XMIN])) > 0:
            order[anchors + left] = row
            left += 1
    return left


@compiled
def _inside(side: float) -> Any:
    return min(max(side, np.float32(0)), np.float32(1))


@compiled
def _is_allowed(score: float, rule: Any) -> Any:
    return score > rule.score_threshold if rule.is_tensorflow else score >= rule.score_threshold
