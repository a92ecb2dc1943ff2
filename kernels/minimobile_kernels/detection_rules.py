"""What travels with a call of `detection.detect`: rules as a record, and the sizes of the memory that it needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels.reference_detection import Rules

RULES = np.dtype(
    [
        *[(name, np.int64) for name in ("num_classes", "label_offset", "max_detections", "max_classes_per_detection")],
        *[(name, np.int64) for name in ("detections_per_class", "is_by_class", "is_tensorflow")],
        *[(name, np.float32) for name in ("score_threshold", "iou_threshold")],
        *[(f"{name}_scale", np.float32) for name in "yxhw"],
    ]
)
"""`reference_detection.Rules` as a record, and the scales of the box encodings."""
CLASS, SCORE = 4, 5
"""The columns of a row found, behind those of its box."""
BLOCK = 512
"""How many scores are computed at a time."""


def pack_rules(rules: Rules, scales: Any) -> np.ndarray[Any, Any]:
    """Return rules, and the scales (y, x, h, w) of box encodings, as the compiled function takes them."""
    return np.array([(*rules, *scales)], RULES)


def work_sizes(anchors: int, num_classes: int) -> tuple[tuple[int, int], int]:
    """Return the shape of `work` and the size of `order` for a number of anchors and classes."""
    return (anchors, 7), 4 * anchors + num_classes
