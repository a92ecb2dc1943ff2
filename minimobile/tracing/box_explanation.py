"""How a detection's box comes about: its cell, its anchor, the four numbers for it, and each step to the corners."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.networks import ssd
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile_kernels.elementwise import exponential
from minimobile_kernels.reference_detection import decode_boxes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BoxStep:
    """One step: what it gives, how it is computed, and the number, in float64 or rounded to float32."""

    name: str
    formula: str
    value: float


@dataclass(frozen=True)
class BoxExplanation:
    """Detection number `rank` of a picture: the best is 0.

    `anchor` is the row of its anchor among all, `place` (map, row, column, shape) where it stands, `anchor_box` (y, x,
    h, w). `encoding` (y, x, h, w) and `logit` are what the network predicts there, `box` the corners (ymin, xmin, ymax,
    xmax) that `steps` give, `computed` those of the run.
    """

    rank: int
    label: int
    score: float
    logit: float
    anchor: int
    place: tuple[int, int, int, int]
    anchor_box: tuple[float, ...]
    encoding: tuple[float, ...]
    steps: tuple[BoxStep, ...]
    box: tuple[float, ...]
    computed: tuple[float, ...]

    @property
    def agrees(self) -> bool:
        """Whether the steps give the run's box, to the bit."""
        return self.box == self.computed

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**dataclasses.asdict(self), "agrees": self.agrees}


def find_anchor(encodings: Floats, anchors: Floats, detector: MobileNetSSDConfig, box: Floats, logits: Floats) -> int:
    """Return the row whose decoded box is a detection's: of several, the first with the largest logit of its class.

    Shapes: encodings and anchors (A, 4), box (4), logits (A).
    """
    scales = np.array(detector.box_scales, np.float32)
    decoded = decode_boxes(encodings, anchors, scales, detector.post_processing == "tensorflow")
    if detector.post_processing == "tensorflow":
        decoded = np.clip(decoded, np.float32(0), np.float32(1))
    rows = np.flatnonzero((decoded == box).all(1))
    return int(rows[logits[rows].argmax()])


def explain_box(
    detector: MobileNetSSDConfig,
    anchors: Floats,
    maps: Sequence[tuple[int, int]],
    encodings: Floats,
    logits: Floats,
    rank: int,
    label: int,
    score: float,
    computed: Floats,
) -> BoxExplanation:
    """Write out the box of a detection in the arithmetic of its school.

    TFLite's is float64, rounded to float32 before the corners; TensorFlow's is float32, clipped to the picture.

    Shapes: anchors and encodings (A, 4), maps: (height, width) of each, logits (A, K + 1), computed (4).
    """
    anchor = find_anchor(encodings, anchors, detector, computed, logits[:, label + 1])
    is_tensorflow = detector.post_processing == "tensorflow"
    inside = ", in 0 to 1" if is_tensorflow else ""
    steps: list[BoxStep] = []
    corners: list[float] = []
    for axis, (where, length) in enumerate((("y", "h"), ("x", "w"))):
        by, growth = (float(np.float32(detector.box_scales[index])) for index in (axis, 2 + axis))
        centre, size = (float(anchors[anchor, index]) for index in (axis, 2 + axis))
        shift, scale = (float(encodings[anchor, index]) for index in (axis, 2 + axis))
        kind = np.float32 if is_tensorflow else np.float64
        power = kind(exponential(np.float64(kind(scale) / kind(growth))))
        middle = np.float32(kind(shift) / kind(by) * kind(size) + kind(centre))
        half = np.float32(power * kind(size) * kind(0.5) if is_tensorflow else 0.5 * power * size)
        low, high = middle - half, middle + half
        if is_tensorflow:
            low, high = (np.clip(side, np.float32(0), np.float32(1)) for side in (low, high))
        steps += [
            BoxStep(f"centre {where}", f"{shift:.6g} / {by:g} * {size:.6g} + {centre:.6g}", float(middle)),
            BoxStep(f"half {length}", f"0.5 * e**({scale:.6g} / {growth:g}) * {size:.6g}", float(half)),
            BoxStep(f"{where}min", f"{float(middle):.6g} - {float(half):.6g}{inside}", float(low)),
            BoxStep(f"{where}max", f"{float(middle):.6g} + {float(half):.6g}{inside}", float(high)),
        ]
        corners += [float(low), float(high)]
    return BoxExplanation(
        rank, label, float(score), float(logits[anchor, label + 1]), anchor, _find_place(detector, maps, anchor),
        tuple(map(float, anchors[anchor])), tuple(map(float, encodings[anchor])), tuple(steps),
        (corners[0], corners[2], corners[1], corners[3]), tuple(map(float, computed)),
    )  # fmt: skip


def _find_place(detector: MobileNetSSDConfig, maps: Sequence[tuple[int, int]], row: int) -> tuple[int, int, int, int]:
    """Return map, row, column and shape of an anchor."""
    for index, ((height, width), count) in enumerate(zip(maps, ssd.count_anchors(detector), strict=True)):
        if row < height * width * count:
            cell, shape = divmod(row, count)
            return index, cell // width, cell % width, shape
        row -= height * width * count
    raise AssertionError("an anchor beyond the last map")
