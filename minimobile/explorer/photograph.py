"""The photograph on its way to the network: as taken, resized, cropped, and as the numbers that the network reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.costs.profile import read_size
from minimobile.explorer.payload import Payload
from minimobile.imaging.summary import describe_settings, find_size
from minimobile.models.auto import require_processor
from minimobile.models.base_model import MobileNetModel

LONGEST_EDGE = 384  # of a picture in the page that is there to be looked at
NOTHING: dict[str, Any] = {
    "central_fraction": None,
    "do_resize": False,
    "do_center_crop": False,
    "canvas_size": None,
    "do_rescale": False,
    "do_normalize": False,
    "do_pad": False,
}
STEPS = (
    ("central_fraction", "Middle", ("central_fraction",)),
    ("do_resize", "Resized", ("do_resize",)),
    ("do_center_crop", "Cropped", ("do_center_crop",)),
    ("canvas_size", "Filled up", ("canvas_size",)),
)


class Processed(NamedTuple):
    """What the page shows of the way, for JSON, and pixel_values (1, C, H, W)."""

    stages: list[dict[str, Any]]
    pixel_values: NDArray[np.float32]


def process_photograph(model: MobileNetModel, photo: Image.Image, payload: Payload) -> Processed:
    """Bring a photo to the network by the model's own processor, and keep what it is after each step.

    A network for segmentation is shown the whole picture, as by `segment`.
    """
    processor = require_processor(model)
    own = processor.to_dict()
    if type(model).__name__.endswith("Segmentation"):
        own |= {"central_fraction": None, "do_center_crop": False}
        if processor.canvas_size is None:
            height, width = find_size(processor.to_dict()) or read_size(model.config.image_size)
            own |= {"do_resize": True, "size": {"height": height, "width": width}}
    own.pop("image_processor_type", None)
    stages = [_describe("As taken", "", np.asarray(photo).transpose(2, 0, 1), payload)]
    settings = {**own, **NOTHING}
    if own.get("rescale_first"):
        settings["do_rescale"] = own["do_rescale"]
    for name, title, keys in STEPS:
        if own.get(name):
            settings |= {key: own[key] for key in keys}
            pixels = processor(photo, **settings, return_tensors="np")["pixel_values"][0]
            only = {**own, **NOTHING, **{key: own[key] for key in keys}}
            stages.append(_describe(title, describe_settings(only), pixels, payload))
    pixel_values = processor(photo, **own, return_tensors="np")["pixel_values"]
    only = {**own, **NOTHING, **{key: own[key] for key in ("do_rescale", "do_normalize") if key in own}}
    stages.append({"title": "What the network reads", "text": describe_settings(only), "isInput": True})
    return Processed(stages, pixel_values)


def _describe(title: str, text: str, pixels: NDArray[Any], payload: Payload) -> dict[str, Any]:
    """Describe one stage, and add its picture. Shape: pixels (3, H, W), in 0 to 255 or rescaled."""
    height, width = pixels.shape[1:]
    factor = -(-max(height, width) // LONGEST_EDGE)
    shown = pixels[:, ::factor, ::factor]  # pixels as they are: a mean would show numbers that nobody had
    return {
        "title": title,
        "text": text,
        "height": height,
        "width": width,
        "factor": factor,
        "pixels": payload.add(np.ascontiguousarray(shown.transpose(1, 2, 0))),
    }
