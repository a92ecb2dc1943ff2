"""From a detector's raw outputs to detections, in one native call. Defined by `reference_detection.py`, the same bits.

Candidates lie in a heap, from which the best comes next: of thousands, a few hundred are ever looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import literal_unroll
from numba.extending import register_jitable

from minimobile_kernels import maps  # noqa: F401  # which tells the compiler of elementwise's functions
from minimobile_kernels._jit import compiled
from minimobile_kernels.detection_rules import BLOCK
from minimobile_kernels.elementwise import LN2_HIGH, LN2_LOW, LOG2_E, TAYLOR
from minimobile_kernels.reference_detection import partial_sort, settle_heap

for _function in (settle_heap, partial_sort):
    register_jitable(_function)

YMIN, XMIN, YMAX, XMAX, AREA, KEY, BEST = range(7)
"""The columns of `work`: a box, its area, the score by which it is suppressed, and the best of all of its scores."""
CLASS, SCORE = 4, 5
"""The columns of `out` behind those of the box."""


def detect(
    encodings: Any, scores: Any, anchors: Any, rules: Any, work: Any, order: Any, out: Any, count: Any
) -> None:  # fmt: skip
    """Decode boxes and choose detections. Defined by reference_detection.decode_boxes and .detect.

    Shapes: encodings (N, 4), scores (N * (label_offset + num_classes)), anchors (N, 4), rules (1) of
    `detection_rules.RULES`; work and order: as `detection_rules.work_sizes` says; out (M, 6): rows of a box, its class
    and its score, written up to the number found; count (2): how many were found, and the first row whose box has a
    negative size, or -1: then nothing was found.
    """
    rule = rules[0]
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
        _exponentials(values, powers, count)
        for index in range(count):
            out[start + index] = np.float32(1.0 / (1.0 + values[index]))


@compiled
def _exponentials(values: Any, bits: Any, count: int) -> None:
    """Replace the first `count` float64 `values` by e**x. Defined by elementwise.exponential.

    The same steps, but without branches or calls, so that the compiler makes vectors of them: 2**k is written as
    `bits`, which is exact where |x| < 700. (174,447 scores: 10.7 ms with the scalar form.)
    """
    scales = bits.view(np.float64)
    for index in range(count):
        x = values[index]
        inside = x if abs(x) < 700.0 else 0.0
        bits[index] = (np.int64(np.floor(inside * LOG2_E + 0.5)) + 1023) << 52
    for index in range(count):
        x = values[index]
        is_inside = abs(x) < 700.0
        inside = x if is_inside else 0.0
        k = np.floor(inside * LOG2_E + 0.5)
        r = (inside - k * LN2_HIGH) - k * LN2_LOW
        series = 0.0 * r
        for coefficient in literal_unroll(TAYLOR):
            series = series * r + coefficient
        limit = np.inf if x > 0.0 else (0.0 if x < 0.0 else x)
        values[index] = series * scales[index] if is_inside else limit


@compiled
def _decode(encodings: Any, anchors: Any, rule: Any, work: Any, order: Any) -> int:
    """Write the box and the area of every anchor; return the first row with a negative size, or -1."""
    count, fault = encodings.shape[0], -1
    powers, bits = order.view(np.float64), order[2 * count :]
    for axis in range(2):
        growth = rule.h_scale if axis == 0 else rule.w_scale
        own = powers[axis * count :]
        for row in range(count):
            code = encodings[row, 2 + axis]
            own[row] = np.float64(code / growth) if rule.is_tensorflow else np.float64(code) / np.float64(growth)
        _exponentials(own, bits, count)
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
        best = _largest(scores, row * columns + first, rule.num_classes)
        work[row, KEY] = best
        if _is_allowed(best, rule):
            order[filled] = row
            filled += 1
    found = _suppress(work, order, filled, rule, rule.max_detections, out, 0)
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
    anchors, found, columns = work.shape[0], 0, rule.label_offset + rule.num_classes
    limit = rule.detections_per_class
    if not rule.is_tensorflow:
        limit = min(limit, rule.max_detections)
    live, rows = order[2 * anchors :], _list_best(scores, rule, work, order)
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
        if filled:
            kept = _suppress(work, order, filled, rule, limit, out, found if is_full and not rule.is_tensorflow else 0)
            if rule.is_tensorflow:
                kept = _drop_outside(work, order, kept)
            found = _merge(work, order, kept, number, rule, out, found)
    if rule.is_tensorflow:
        for index in range(found):
            for side in range(4):
                out[index, side] = _inside(out[index, side])
    return found


@compiled
def _list_best(scores: Any, rule: Any, work: Any, order: Any) -> Any:
    """Write the rows, and the best score of each, of those that are allowed; return how many there are."""
    anchors, columns, filled = work.shape[0], rule.label_offset + rule.num_classes, 0
    for row in range(anchors):
        work[row, BEST] = _largest(scores, row * columns + rule.label_offset, rule.num_classes)
        if _is_allowed(work[row, BEST], rule):
            order[2 * anchors + filled] = row
            filled += 1
    return filled


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


@compiled
def _largest(values: Any, start: int, count: int) -> Any:
    """Return the largest of `count` values, eight at a time: one comparison need not wait for the one before."""
    best = values[start]
    whole = count // 8 * 8
    if whole:
        a, b, c, d = values[start], values[start + 1], values[start + 2], values[start + 3]
        e, f, g, h = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
        for place in range(start + 8, start + whole, 8):
            a, b = max(a, values[place]), max(b, values[place + 1])
            c, d = max(c, values[place + 2]), max(d, values[place + 3])
            e, f = max(e, values[place + 4]), max(f, values[place + 5])
            g, h = max(g, values[place + 6]), max(h, values[place + 7])
        best = max(a, b, c, d, e, f, g, h)
    for place in range(start + whole, start + count):
        best = max(best, values[place])
    return best


@compiled
def _suppress(work: Any, order: Any, filled: int, rule: Any, limit: int, out: Any, full: int) -> int:
    """Write the rows kept, best first, to the second part of `order`, and return how many there are.

    `full` is the length of a full list in `out`, or 0: a row enters it behind those kept before it if it is better than
    what is so many from its end. The first that is not, ends the search.
    """
    anchors, kept = work.shape[0], 0
    for hole in range(filled // 2 - 1, -1, -1):
        _sink(work, order, hole, filled)
    while filled > 0 and kept < limit:
        row = order[0]
        if full > 0 and work[row, KEY] <= out[full - 1 - kept, SCORE]:
            break
        filled -= 1
        order[0] = order[filled]
        _sink(work, order, 0, filled)
        is_free = True
        for index in range(kept):
            if _overlaps(work, order[anchors + index], row, rule.iou_threshold):
                is_free = False
                break
        if is_free:
            order[anchors + kept] = row
            kept += 1
    return kept


@compiled
def _sink(work: Any, order: Any, hole: int, filled: int) -> None:
    """Restore the heap below a place: the best score on top, the lower row of equal ones."""
    row = order[hole]
    while 2 * hole + 1 < filled:
        child = 2 * hole + 1
        if child + 1 < filled and _is_before(work, order[child + 1], order[child]):
            child += 1
        if not _is_before(work, order[child], row):
            break
        order[hole] = order[child]
        hole = child
    order[hole] = row


@compiled
def _is_before(work: Any, first: int, second: int) -> Any:
    left, right = work[first, KEY], work[second, KEY]
    return left > right or (left == right and first < second)


@compiled
def _overlaps(work: Any, first: int, second: int, threshold: float) -> Any:
    """Tell whether intersection over union is above a threshold. Defined by reference_detection.overlap.

    Most boxes share nothing: a comparison in place of a division.
    """
    height = _span(work[first, YMIN], work[first, YMAX], work[second, YMIN], work[second, YMAX])
    width = _span(work[first, XMIN], work[first, XMAX], work[second, XMIN], work[second, XMAX])
    shared = height * width
    if shared == 0 or work[first, AREA] <= 0 or work[second, AREA] <= 0:
        return False  # of a threshold that is zero or more
    return shared / (work[first, AREA] + work[second, AREA] - shared) > threshold


@compiled
def _span(low: float, high: float, other_low: float, other_high: float) -> Any:
    """Return what two intervals share, at least 0; what is not a number stays so."""
    top = other_high if other_high < high else high
    bottom = other_low if other_low > low else low
    length = top - bottom
    return np.float32(0) if length < 0 else length
