"""From a detector's predictions in bytes to detections, without making numbers of them first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.detection import PostProcessor
from minimobile_kernels.detection_rules import CLASS, SCORE, pack_rules, work_sizes
from minimobile_kernels.entries import detect_bytes

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class ByteDetection:
    """What `PostProcessor` makes of the numbers that bytes stand for, bit for bit, and sooner.

    Scores of bytes are compared as bytes, and only the detections' own become numbers.
    """

    def __init__(self, rules: PostProcessor, label_offset: int, encodings: Floats, scores: Floats) -> None:
        """Keep the rules; `encodings` and `scores` (256) are what each byte stands for, scores from the least on.

        `label_offset` (0 or 1) columns of scores come before those of the classes.
        """
        self._rules = rules
        self._numbers = np.stack([encodings, scores])
        own = rules.rules._replace(
            label_offset=label_offset, score_threshold=_find_byte(scores, rules.rules.score_threshold, rules)
        )
        self._packed = pack_rules(own, rules.scales)
        self._sizes = work_sizes(len(rules.anchors), own.num_classes)
        self._most = own.max_detections * own.max_classes_per_detection

    def run(self, encodings: Bytes, scores: Bytes, where: str) -> tuple[Floats, Floats, Floats, Floats]:
        """Return boxes, classes, scores and counts as `Detections` has them; errors as of `PostProcessor.run`.

        Shapes: encodings (N, A, 4), scores (N, A, label_offset + num_classes).
        """
        count, (shape, size) = len(encodings), self._sizes
        rows, counts = np.zeros((count, self._most, 6), np.float32), np.zeros(count, np.float32)
        work, order, found = np.empty(shape, np.float32), np.empty(size, np.int64), np.zeros(2, np.int64)
        for index in range(count):
            detect_bytes(
                encodings[index], scores[index].reshape(-1), self._numbers, self._rules.anchors, self._packed, work,
                order, rows[index], found,
            )  # fmt: skip
            self._rules.refuse_negative(int(found[1]), work[:, :4], where)
            counts[index] = found[0]
        return rows[..., :4].copy(), rows[..., CLASS].copy(), rows[..., SCORE].copy(), counts


def _find_byte(scores: Floats, threshold: np.float32, rules: PostProcessor) -> np.float32:
    """Return the threshold of bytes that allows those whose scores a threshold allows; -1 and 256 are no bytes."""
    if rules.rules.is_tensorflow:  # a score has to be above it
        return np.float32(np.searchsorted(scores, threshold, "right") - 1)
    return np.float32(np.searchsorted(scores, threshold))
