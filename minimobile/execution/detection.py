"""From a detector's raw outputs to detections: boxes, classes and scores of every picture, and how many there are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile_kernels import reference_detection
from minimobile_kernels.detection_rules import BLOCK, CLASS, SCORE, pack_rules, work_sizes
from minimobile_kernels.elementwise import exponential, sigmoid
from minimobile_kernels.entries import detect, detect_bytes, sigmoid_scores
from minimobile_kernels.reference_detection import Rules, decode_boxes

Array = NDArray[Any]
Floats = NDArray[np.float32]


class Detections(NamedTuple):
    """What was found in N pictures; rows behind a picture's count hold zeros.

    Shapes: boxes (N, M, 4) as ymin, xmin, ymax, xmax relative to the picture, classes (N, M), scores (N, M), counts
    (N), all float32; decoded (N, A, 4): the boxes of all anchors. Where one anchor gives several classes
    (`max_classes_per_detection` k), each counts as k rows, and M is `max_detections` times k.
    """

    boxes: Floats
    classes: Floats
    scores: Floats
    counts: Floats
    decoded: Floats


def is_ready() -> bool:
    """Tell whether the kernels of detections are compiled, in this process or on disk."""
    return detect.is_ready() and detect_bytes.is_ready() and sigmoid_scores.is_ready()


def warm_up() -> None:
    """Compile the kernels of detections, or load them from disk, without anything to detect."""
    rules = Rules(1, 0, 1, 1, 1, False, False, np.float32(0), np.float32(1))
    shape, size = work_sizes(0, 1)
    nothing, work = np.zeros((0, 4), np.float32), np.zeros(shape, np.float32)
    rows, found = np.zeros((1, 6), np.float32), np.zeros(2, np.int64)
    scores, orders = np.zeros(0, np.float32), np.zeros(size, np.int64)
    rest = nothing, pack_rules(rules, np.ones(4)), work, orders, rows, found
    detect(nothing, scores, *rest)
    detect_bytes(nothing.view(np.uint8), scores.view(np.uint8), np.zeros((2, 256), np.float32), *rest)
    sigmoid_scores(scores, np.zeros(2 * BLOCK, np.int64), scores.copy())


class PostProcessor:
    """Makes detections of predictions, by the rules of one detector and its anchors (A, 4)."""

    def __init__(self, ssd: MobileNetSSDConfig, num_classes: int, anchors: Floats, engine: str = "compiled") -> None:
        self.ssd = ssd
        self.anchors = np.ascontiguousarray(anchors, np.float32)
        is_by_class = ssd.use_regular_nms or ssd.post_processing == "tensorflow"
        self.rules = Rules(
            num_classes, 0, ssd.max_detections, ssd.max_classes_per_detection, ssd.detections_per_class, is_by_class,
            ssd.post_processing == "tensorflow", np.float32(ssd.score_threshold), np.float32(ssd.iou_threshold),
        )  # fmt: skip
        self.scales = np.array(ssd.box_scales, np.float32)
        self.is_compiled = engine == "compiled"

    def run(self, encodings: Array, scores: Array, where: str = "detection") -> Detections:
        """Decode boxes and choose among them.

        Raises InputError for NaN, for another number of predictions than anchors, and where a box has a negative size,
        as LiteRT's operator fails there.

        Shapes: encodings (N, A, 4), scores (N, A, num_classes), or one more, the first of which is a background.
        """
        count, anchors = len(encodings), len(self.anchors)
        rules = self.rules._replace(label_offset=scores.shape[-1] - self.rules.num_classes)
        if encodings.shape != (count, anchors, 4) or scores.shape[:2] != (count, anchors):
            raise InputError(
                f"{where}: expected predictions for {anchors} anchors, got box encodings {encodings.shape} and scores "
                f"{scores.shape}; pictures of another size have another number of them"
            )
        if rules.label_offset not in (0, 1):
            raise InputError(
                f"{where}: expected scores of {rules.num_classes} classes, or of these and a background, got "
                f"{scores.shape[-1]}"
            )
        for what, values in (("box encodings", encodings), ("scores", scores)):
            if np.isnan(np.min(values, initial=0)):
                raise InputError(f"{where}: expected {what} that are numbers, got NaN; `trace` shows where it begins")
        rows = np.zeros((count, rules.max_detections * rules.max_classes_per_detection, 6), np.float32)
        counts, decoded = np.zeros(count, np.float32), np.zeros((count, anchors, 4), np.float32)
        run = self._run_compiled if self.is_compiled else self._run_definition
        for index in range(count):
            codes, chances = (np.ascontiguousarray(part[index], np.float32) for part in (encodings, scores))
            counts[index] = run(codes, chances, rules, rows[index], decoded[index], where)
        return Detections(rows[..., :4].copy(), rows[..., CLASS].copy(), rows[..., SCORE].copy(), counts, decoded)

    def _run_compiled(
        self, encodings: Floats, scores: Floats, rules: Rules, rows: Floats, decoded: Floats, where: str
    ) -> int:
        shape, size = work_sizes(len(self.anchors), rules.num_classes)
        work, found = np.empty(shape, np.float32), np.zeros(2, np.int64)
        packed = pack_rules(rules, self.scales)
        detect(encodings, scores.reshape(-1), self.anchors, packed, work, np.empty(size, np.int64), rows, found)
        decoded[:] = work[:, :4]
        self.refuse_negative(int(found[1]), decoded, where)
        return int(found[0])

    def _run_definition(
        self, encodings: Floats, scores: Floats, rules: Rules, rows: Floats, decoded: Floats, where: str
    ) -> int:
        decoded[:] = decode_boxes(encodings, self.anchors, self.scales, rules.is_tensorflow)
        negative = np.flatnonzero((decoded[:, :2] > decoded[:, 2:]).any(1))
        self.refuse_negative(int(negative[0]) if negative.size else -1, decoded, where)
        return reference_detection.detect(decoded, scores, rules, rows[:, :4], rows[:, CLASS], rows[:, SCORE])

    def refuse_negative(self, row: int, decoded: Floats, where: str) -> None:
        """Raise InputError for the box (A, 4) of a row, the first with a negative size; not for row -1."""
        if row >= 0:
            sides = ", ".join(f"{side:g}" for side in decoded[row])
            raise InputError(
                f"{where}: expected boxes of a height and width of zero or more, got ({sides}) (ymin, xmin, ymax, "
                f"xmax) of anchor {row}; its file is damaged, for LiteRT refuses such boxes, too"
            )


def convert_scores(logits: Array, converter: str, engine: str = "compiled") -> Floats:
    """Return the scores of logits (..., K): sigmoids, or the softmax of each row; in float64, rounded once."""
    if converter == "softmax":
        with np.errstate(all="ignore"):
            powers = exponential(logits.astype(np.float64) - logits.max(-1, keepdims=True))
            shares: Floats = (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
        return shares
    if engine != "compiled":
        return np.asarray(sigmoid(logits.astype(np.float64)), np.float32)
    scores = np.empty(logits.shape, np.float32)
    flat = np.ascontiguousarray(logits, np.float32).reshape(-1)
    sigmoid_scores(flat, np.empty(2 * BLOCK, np.int64), scores.reshape(-1))
    return scores
