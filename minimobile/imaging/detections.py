"""A detector's outputs as lists of what was found, in pixels or relative to the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.imaging.inputs import to_array
from minimobile.imaging.transforms import resized_size

FIELDS = ("detection_boxes", "detection_classes", "detection_scores")


def check_threshold(threshold: object, where: str) -> float:
    """Return a threshold of scores. Raises InputError for what is no number between 0 and 1."""
    is_number = isinstance(threshold, int | float | np.integer | np.floating) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:  # type: ignore[operator]
        raise InputError(f"{where}: expected a threshold between 0 and 1, got {threshold!r}")
    return float(threshold)  # type: ignore[arg-type]


def reach(
    size: tuple[int, int] | None, resize: Mapping[str, int] | None, canvas: Mapping[str, int] | None
) -> tuple[float, float] | None:
    """Return (height, width) in a picture's pixels of what a detector sees: the picture, or the canvas that it lies on.

    `size` is the picture's, None where boxes stay relative; `resize` and `canvas` are an image processor's settings.

    >>> reach((300, 400), {"max_height": 200, "max_width": 200}, {"height": 200, "width": 200})
    (400.0, 400.0)
    """
    if size is None or canvas is None:
        return size
    height, width = size if resize is None else resized_size(*size, resize)
    return canvas["height"] * size[0] / height, canvas["width"] * size[1] / width


Detections = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def read_detections(outputs: Any, where: str) -> Detections:
    """Return the boxes (N, M, 4), classes (N, M) and scores (N, M) of a detector's outputs.

    Raises InputError for outputs that are no detector's.
    """
    boxes, labels, scores = (to_array(_read(outputs, name, where), where) for name in FIELDS)
    if boxes.ndim != 3 or boxes.shape[2] != 4 or not labels.shape == scores.shape == boxes.shape[:2]:
        raise InputError(f"{where}: expected detection_boxes (N, M, 4), got {boxes.shape} with scores {scores.shape}")
    return boxes, labels, scores


def list_detections(
    found: Detections, threshold: float, sizes: Sequence[tuple[float, float] | None]
) -> list[dict[str, NDArray[Any]]]:
    """Return {"scores" (D), "labels" (D) int64, "boxes" (D, 4) as xmin, ymin, xmax, ymax} for each picture.

    What scores more than `threshold` is kept, the best first. `sizes` are (height, width), None to leave boxes relative
    to what the detector saw.
    """
    boxes, labels, scores = found
    results = []
    for index, size in enumerate(sizes):
        is_kept = scores[index] > threshold  # rows behind the last one that was found have the score 0
        corners = boxes[index][is_kept][:, [1, 0, 3, 2]]  # (D, 4)
        if size is not None:
            height, width = size
            corners = (corners * np.array([width, height, width, height], np.float32)).astype(np.float32)
        results.append(
            {"scores": scores[index][is_kept], "labels": labels[index][is_kept].astype(np.int64), "boxes": corners}
        )
    return results


def _read(outputs: Any, name: str, where: str) -> Any:
    value = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    if value is None:
        raise InputError(f"{where}: expected the outputs of a detector, with {', '.join(FIELDS)}, got none of {name}")
    return value
