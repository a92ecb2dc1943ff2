"""What the network answers, as the library's own tasks give it: labels, a mask, boxes with their anchors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.errors import printable
from minimobile.explorer.payload import Payload
from minimobile.explorer.photograph import LONGEST_EDGE
from minimobile.imaging.box_drawing import choose_colour
from minimobile.imaging.drawing import palette
from minimobile.models.auto import CLASSIFICATION, DETECTION, SEGMENTATION, TASKS
from minimobile.models.base_model import MobileNetModel
from minimobile.models.classification import classify
from minimobile.models.detection import find_objects
from minimobile.models.segmentation import find_classes

THRESHOLD = 0.3  # of the scores of boxes
MOST_BOXES = 20


def describe_answer(
    model: MobileNetModel, photo: Image.Image, pixel_values: NDArray[np.float32], payload: Payload
) -> dict[str, Any]:
    """Return {"task", ...} for JSON, the arrays being added to the payload. A network without a head has no answer."""
    labels = {str(index): printable(label) for index, label in model.id2label.items()}
    if isinstance(model, TASKS[CLASSIFICATION]):
        return {
            "task": "classification",
            "labels": labels,
            "isMultiLabel": model.config.problem_type == "multi_label_classification",
            "top": [{**found, "label": printable(found["label"])} for found in classify(photo, model, top=10)],
        }
    if isinstance(model, TASKS[SEGMENTATION]):
        return {"task": "segmentation", "labels": labels, **_describe_mask(model, photo, payload)}
    if isinstance(model, TASKS[DETECTION]):
        return {"task": "detection", **_describe_boxes(model, photo, pixel_values)}
    return {"task": "features"}


def _describe_mask(model: MobileNetModel, photo: Image.Image, payload: Payload) -> dict[str, Any]:
    classes = find_classes(model, photo)  # (H, W)
    found, counts = np.unique(classes, return_counts=True)
    factor = -(-max(classes.shape) // LONGEST_EDGE)
    return {
        "colours": palette()[: len(model.id2label)].tolist(),
        "mask": payload.add(classes[::factor, ::factor].astype(np.int32)),
        "shares": {str(index): float(count / classes.size) for index, count in zip(found, counts, strict=True)},
    }


def _describe_boxes(model: Any, photo: Image.Image, pixel_values: NDArray[np.float32]) -> dict[str, Any]:
    objects = find_objects(model, photo, THRESHOLD)[:MOST_BOXES]
    can_explain = model.config.ssd.post_processing == "tflite"
    boxes = []
    for rank, found in enumerate(objects):
        box: dict[str, Any] = {
            **found,
            "label": printable(found["label"]),
            "colour": choose_colour(found["index"]),
            "written": None,
        }
        if can_explain:
            box["written"] = model.explain_box(pixel_values, rank).to_dict()
        boxes.append(box)
    return {"threshold": THRESHOLD, "boxes": boxes, "photo": [photo.height, photo.width]}
