"""The definition of what makes detections of a detector's raw outputs: boxes decoded, the overlapping ones suppressed.

Source: LiteRT, tflite/kernels/detection_postprocess.cc, and object_detection's core/post_processing.py ("tensorflow").
`detection.py` gives the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels.elementwise import exponential

Floats = NDArray[np.float32]


class Rules(NamedTuple):
    """How detections are chosen.

    `label_offset` columns of scores come before those of the classes (1: a background). `is_by_class`: each class is
    suppressed by itself. `is_tensorflow`: a score has to be above the threshold, not just at it, boxes are decoded in
    float32, clipped to the picture at the very end, and dropped where nothing is left of them.
    """

    num_classes: int
    label_offset: int
    max_detections: int
    max_classes_per_detection: int
    detections_per_class: int
    is_by_class: bool
    is_tensorflow: bool
    score_threshold: np.float32
    iou_threshold: np.float32


def decode_boxes(encodings: Floats, anchors: Floats, scales: NDArray[np.float32], is_tensorflow: bool) -> Floats:
    """Return corners (ymin, xmin, ymax, xmax) for encodings (y, x, h, w) of boxes relative to anchors (y, x, h, w).

    centre = t / scale * size + centre of the anchor, half = exp(t / scale) * size / 2; computed in float64, from left
    to right, and rounded to float32 before the corners are taken in float32. "tensorflow" rounds every step to float32.

    Shapes: encodings (N, 4), anchors (N, 4), scales (4) -> (N, 4).
    """
    kind = np.float32 if is_tensorflow else np.float64
    half = kind(0.5)
    with np.errstate(all="ignore"):
        t = encodings.astype(kind) / scales.astype(kind)
        sizes, centres = anchors[:, 2:].astype(kind), anchors[:, :2].astype(kind)
        middle = (t[:, :2] * sizes + centres).astype(np.float32)
        growth = exponential(t[:, 2:].astype(np.float64)).astype(kind)
        reach = (growth * sizes * half if is_tensorflow else half * growth * sizes).astype(np.float32)
        return np.concatenate([middle - reach, middle + reach], 1)


def overlap(first: Floats, second: Floats) -> Any:
    """Return the intersection of two boxes over their union, in float32; 0 where one of them has no area."""
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    if areas[0] <= 0 or areas[1] <= 0:
        return np.float32(0)
    height = max(min(first[2], second[2]) - max(first[0], second[0]), np.float32(0))
    width = max(min(first[3], second[3]) - max(first[1], second[1]), np.float32(0))
    shared = height * width
    return np.float32(shared / (areas[0] + areas[1] - shared))


def suppress(boxes: Floats, scores: Floats, rules: Rules, limit: int) -> list[int]:
    """Return the rows kept of one list of boxes, best first: each one that overlaps none kept before it by too much.

    Equal scores are in the order of rows. Shapes: boxes (N, 4), scores (N).
    """
    allowed = scores > rules.score_threshold if rules.is_tensorflow else scores >= rules.score_threshold
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if len(kept) == limit or not allowed[row]:
            break
        if not any(overlap(boxes[other], boxes[row]) > rules.iou_threshold for other in kept):
            kept.append(int(row))
    return kept


def partial_sort(values: Any, order: Any, start: int, count: int, total: int) -> None:
    """Order numbers 0..total - 1 so that those of the `count` largest values come first, the largest at the front.

    Equal values are in the order that libstdc++'s `std::partial_sort` leaves them in: a heap of the first `count`, in
    which each later and larger one replaces the smallest, and which is sorted at the end.

    Shapes: values, from `start` on: (total), order (total), written.
    """
    for number in range(total):
        order[number] = number
    for hole in range((count - 2) // 2, -1, -1):
        settle_heap(values, order, start, hole, count, order[hole])
    for number in range(count, total):
        value = order[number]
        if values[start + value] > values[start + order[0]]:
            order[number] = order[0]
            settle_heap(values, order, start, 0, count, value)
    for last in range(count - 1, 0, -1):
        value = order[last]
        order[last] = order[0]
        settle_heap(values, order, start, 0, last, value)


def settle_heap(values: Any, order: Any, start: int, top: int, count: int, value: int) -> None:
    """Put a number into a heap whose root is its smallest value: libstdc++'s `__adjust_heap`."""
    hole, child = top, top
    while child < (count - 1) // 2:
        child = 2 * (child + 1)
        if values[start + order[child]] > values[start + order[child - 1]]:
            child -= 1
        order[hole] = order[child]
        hole = child
    if count % 2 == 0 and child == (count - 2) // 2:
        child = 2 * (child + 1)
        order[hole] = order[child - 1]
        hole = child - 1
    while hole > top and values[start + order[(hole - 1) // 2]] > values[start + value]:
        order[hole] = order[(hole - 1) // 2]
        hole = (hole - 1) // 2
    order[hole] = value


def detect(
    boxes: Floats, scores: Floats, rules: Rules, out_boxes: Floats, out_classes: Floats, out_scores: Floats
) -> int:
    """Choose detections and return how many there are; the rows behind them are not written.

    By class: every class is suppressed by itself and joined to those before, in the order of scores, earlier classes
    first where they are equal. Else: anchors are suppressed by their best class, and each that is kept gives its
    `max_classes_per_detection` best classes, a row each; what is counted are the anchors.

    Shapes: boxes (N, 4), scores (N, label_offset + num_classes), out_boxes (M, 4), out_classes (M), out_scores (M),
    with M = max_detections * max_classes_per_detection.
    """
    choose = _detect_by_class if rules.is_by_class else _detect_by_anchor
    return choose(boxes, scores[:, rules.label_offset :], rules, out_boxes, out_classes, out_scores)


def _detect_by_anchor(
    boxes: Floats, scores: Floats, rules: Rules, out_boxes: Floats, out_classes: Floats, out_scores: Floats
) -> int:
    each = min(rules.max_classes_per_detection, rules.num_classes)
    kept = suppress(boxes, scores.max(1), rules, rules.max_detections)
    order = np.zeros(rules.num_classes, np.int64)
    for index, row in enumerate(kept):
        if each == 1:
            order[0] = scores[row].argmax()
        else:
            partial_sort(scores[row], order, 0, each, rules.num_classes)
        first = index * rules.max_classes_per_detection
        out_boxes[first : first + each] = boxes[row]
        out_classes[first : first + each] = order[:each]
        out_scores[first : first + each] = scores[row, order[:each]]
    return len(kept)


def _detect_by_class(
    boxes: Floats, scores: Floats, rules: Rules, out_boxes: Floats, out_classes: Floats, out_scores: Floats
) -> int:
    limit = rules.detections_per_class
    found: list[tuple[np.float32, int, int]] = []  # score, class, row
    for number in range(rules.num_classes):
        kept = suppress(
            boxes, scores[:, number], rules, limit if rules.is_tensorflow else min(limit, rules.max_detections)
        )
        visible = [row for row in kept if not rules.is_tensorflow or _has_area(clip(boxes[row]))]
        found += [(scores[row, number], number, row) for row in visible]
    found = sorted(found, key=lambda item: -item[0])[: rules.max_detections]  # stable
    for index, (score, number, row) in enumerate(found):
        out_boxes[index] = clip(boxes[row]) if rules.is_tensorflow else boxes[row]
        out_classes[index], out_scores[index] = number, score
    return len(found)


def clip(box: Floats) -> Floats:
    """Return the part of a box inside the picture."""
    inside: Floats = np.clip(box, np.float32(0), np.float32(1))
    return inside


def _has_area(box: Floats) -> bool:
    return bool((box[2] - box[0]) * (box[3] - box[1]) > 0)
