"""What makes the same weights give other numbers elsewhere: one row per school of MobileNets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minimobile.errors import FormatError

NEAREST, BILINEAR = 0, 2  # PIL's numbers, as preprocessor_config.json has them
HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Dialect:
    """One school's conventions.

    `tf_padding`: TensorFlow's SAME, else the same on all sides. `bottom_right_padding`: as the config's field, for V1.
    `epsilon`: batch norm's in the backbone. `has_background`: ImageNet
    has 1001 classes, the first of them the background. `mean`, `std`: of pixel values in [0, 1].
    `resize`: how a picture comes to the network's size, in words that `processor_settings` turns into settings.
    """

    name: str
    tf_padding: bool
    epsilon: float
    has_background: bool
    resize: str
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    bottom_right_padding: str | None = None


DIALECTS: Mapping[str, Dialect] = {
    row.name: row
    for row in (
        Dialect("huggingface", True, 1e-3, True, "shortest edge 32 longer, then crop"),
        Dialect("slim", True, 1e-3, True, "central 0.875, then TF1 bilinear"),
        Dialect("deeplab", True, 1e-3, True, "longest edge, then pad"),
        Dialect("keras", True, 1e-3, False, "straight, nearest", bottom_right_padding="depthwise"),
        Dialect("keras-applications", True, 1e-3, False, "straight, nearest", bottom_right_padding="all"),
        Dialect("torchvision", False, 1e-5, False, "shortest edge 256 for 224, then crop", IMAGENET_MEAN, IMAGENET_STD),
        Dialect("timm", False, 1e-5, False, "shortest edge 256 for 224, then crop", IMAGENET_MEAN, IMAGENET_STD),
        Dialect("tflite", True, 1e-3, True, "straight, bilinear"),
    )
}


def find_dialect(name: str) -> Dialect:
    """Return the row of that name."""
    if name not in DIALECTS:
        raise FormatError(f"dialect: expected one of {', '.join(DIALECTS)}, got {name!r}")
    return DIALECTS[name]


def processor_settings(dialect: Dialect, model_type: str, image_size: tuple[int, int], channels: int) -> dict[str, Any]:
    """Return what `preprocessor_config.json` says in this school, for pictures of `image_size` (height, width)."""
    height, width = image_size
    names = {"mobilenet_v1": "MobileNetV1ImageProcessor", "mobilenet_v2": "MobileNetV2ImageProcessor"}
    settings: dict[str, Any] = {
        "image_processor_type": names[model_type],
        "do_resize": True,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "resample": BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(dialect.mean[:channels]),
        "image_std": list(dialect.std[:channels]),
    }
    if dialect.resize.startswith("shortest edge 32"):
        return settings | {"size": {"shortest_edge": min(height, width) + 32}}
    if dialect.resize.startswith("shortest edge 256"):
        return settings | {"size": {"shortest_edge": round(min(height, width) * 256 / 224)}}
    straight = {"size": {"height": height, "width": width}, "do_center_crop": False}
    return settings | straight | {"resample": NEAREST if dialect.resize.endswith("nearest") else BILINEAR}
