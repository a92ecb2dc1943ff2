"""What a picture shows and where: objects with their boxes, the likeliest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from minimobile.formats.labels import UNNAMED
from minimobile.imaging.detections import check_threshold
from minimobile.models.auto import DETECTION, choose_model, require_processor
from minimobile.models.base_model import MobileNetModel
from minimobile.models.segmentation import open_photo


def detect(
    image: Any, model: MobileNetModel | str | Path | None = None, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Find the objects in one picture that score more than `threshold`, the best first.

    Each item is {"score": float, "label": str, "index": int, "box": {"xmin", "ymin", "xmax", "ymax"}}, its box in
    pixels of the picture, beyond which it may reach. Classes called "???" are left out.

    Args:
        image: a path, the bytes of a file, a PIL image (turned by its EXIF orientation, as files are), or an array
            (H, W, 3) or (H, W) of bytes.
        model: a detector, or what `load` takes (None: what MINIMOBILE_MODEL names).
        threshold: between 0 and 1.

    Raises:
        InputError: another kind of model, a threshold out of range, predictions that are NaN.
        FormatError: a picture or a model that cannot be read.
    """
    check_threshold(threshold, "detect")
    model = choose_model(model, DETECTION)
    model.prepare()
    return find_objects(model, open_photo(image), threshold)


def find_objects(
    model: Any, photo: Image.Image, threshold: float = 0.5, processor: Any = None, size: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """Find the objects in a photo, as `detect` lists them; `processor` stands in for the model's own.

    The whole picture is looked at, without the crop of a classifier's processor. `size` (height, width) is that of the
    picture in whose pixels the boxes are, None: the photo.
    """
    process = require_processor(model) if processor is None else processor
    outputs = model(process.prepare(photo), return_dict=True)
    (found,) = process.post_process_object_detection(outputs, threshold, [size or (photo.height, photo.width)])
    labels = model.id2label
    return [
        {
            "score": float(score),
            "label": labels[int(index)],
            "index": int(index),
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, box), strict=True)),
        }
        for score, index, box in zip(found["scores"], found["labels"], found["boxes"], strict=True)
        if labels[int(index)] != UNNAMED
    ]
