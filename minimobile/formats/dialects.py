"""What makes the same weights give other numbers elsewhere: one row per school of MobileNets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError

NEAREST, BILINEAR, BICUBIC = 0, 2, 3  # PIL's numbers, as preprocessor_config.json has them

Settings = dict[str, Any]
Resize = Callable[[int, int], Settings]
"""From the network's input (height, width) to the settings that bring a picture to it."""


def stretch(height: int, width: int, *, resample: int, **more: Any) -> Settings:
    """Resize to exactly the size; the aspect is lost."""
    return {"size": {"height": height, "width": width}, "resample": resample, "do_center_crop": False, **more}


def crop_center(height: int, width: int, *, margin: int = 0, edge_for_224: int = 224, **more: Any) -> Settings:
    """Resize the shorter edge to `margin` more than the crop's, or in the ratio of `edge_for_224` to 224, and crop."""
    edge = min(height, width) * edge_for_224 // 224 + margin
    return {"size": {"shortest_edge": edge}, "do_center_crop": True, **more}


def crop_then_stretch(height: int, width: int, *, kept: float) -> Settings:
    """Keep the middle of both edges and resize it to exactly the size, as TF-slim's `inception_preprocessing.py`."""
    return {
        **stretch(height, width, resample=BILINEAR),
        "central_fraction": kept,
        "rescale_first": True,
        "resize_method": "tf1_bilinear",
    }


def fit_on_canvas(height: int, width: int) -> Settings:
    """Resize to the largest that fits and fill up with grey, as DeepLab's `input_preprocess.py`."""
    return {
        "size": {"max_height": height, "max_width": width},
        "resample": BILINEAR,
        "resize_method": "tf1_bilinear_align_corners",
        "do_center_crop": False,
        "canvas_size": {"height": height, "width": width},
        "canvas_value": 127.5,
    }


def fit_on_black(height: int, width: int) -> Settings:
    """Resize to the largest that fits and fill up with black to the right and below, as face-api's `NetInput`."""
    return {**fit_on_canvas(height, width), "resize_method": "tf1_bilinear", "canvas_value": 0.0}


def stretch_on_canvas(height: int, width: int) -> Settings:
    """Resize to exactly the size, which is the canvas: so masks are made as a graph that ends in labels makes them."""
    canvas = {"canvas_size": {"height": height, "width": width}, "canvas_value": 127.5}
    return {**stretch(height, width, resample=BILINEAR), **canvas}


class PixelRange(NamedTuple):
    """What becomes of bytes: `(byte * factor - mean) / std`, per channel."""

    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


HALVES = PixelRange(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = PixelRange(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MINUS_ONE_TO_ONE = PixelRange(2 / 255, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))  # HALVES but for the rounding


@dataclass(frozen=True)
class Dialect:
    """One school's conventions.

    `tf_padding`: TensorFlow's SAME, else the same on all sides. `epsilon`: batch norm's in the backbone.
    `has_background`: ImageNet has 1001 classes, the first of them the background. `resize`: how a picture comes to the
    network's size, `segmentation_resize` and `detection_resize` where that is different. `pixels`: what becomes of its
    bytes, `v1_pixels` and `detection_pixels` where that is different for V1 and detectors.
    `bottom_right_padding`: as the config's field, for V1.
    """

    name: str
    tf_padding: bool
    epsilon: float
    has_background: bool
    resize: Resize
    pixels: PixelRange = HALVES
    v1_pixels: PixelRange | None = None
    segmentation_resize: Resize | None = None
    bottom_right_padding: str | None = None
    detection_resize: Resize | None = None
    detection_pixels: PixelRange | None = None


HUGGINGFACE = partial(crop_center, margin=32, resample=BILINEAR)
TORCHVISION = partial(crop_center, edge_for_224=256, resample=BILINEAR, crop_rounding="half_even")
TORCHVISION_V2 = partial(crop_center, edge_for_224=232, resample=BILINEAR, crop_rounding="half_even")
TIMM = partial(crop_center, edge_for_224=256, resample=BICUBIC, crop_rounding="half_even")
SLIM = partial(crop_then_stretch, kept=0.875)
STRETCH_NEAREST = partial(stretch, resample=NEAREST)
STRETCH_BILINEAR = partial(stretch, resample=BILINEAR)
HALF_PIXELS = partial(stretch, resample=BILINEAR, resize_method="half_pixel_bilinear")

DIALECTS: Mapping[str, Dialect] = {
    row.name: row
    for row in (
        Dialect("huggingface", True, 1e-3, True, HUGGINGFACE),
        Dialect("slim", True, 1e-3, True, SLIM, segmentation_resize=fit_on_canvas),
        Dialect("deeplab", True, 1e-3, True, fit_on_canvas, MINUS_ONE_TO_ONE),
        Dialect(
            "object-detection",  # a graph of tensorflow/models: legacy bilinear, floats that are not rounded
            True,
            1e-3,
            True,
            partial(stretch, resample=BILINEAR, resize_method="tf1_bilinear"),
            MINUS_ONE_TO_ONE,
        ),
        Dialect("keras", True, 1e-3, False, STRETCH_NEAREST, bottom_right_padding="depthwise"),
        Dialect("keras-applications", True, 1e-3, False, STRETCH_NEAREST, bottom_right_padding="all"),
        Dialect("face-api", True, 1e-3, True, fit_on_black, MINUS_ONE_TO_ONE),  # SSD on V1, on a canvas of 512
        Dialect("stm32", True, 1e-3, True, STRETCH_NEAREST, MINUS_ONE_TO_ONE),  # heads that are not decoded
        Dialect(
            "torchvision",
            False,
            1e-5,
            False,
            TORCHVISION,
            IMAGENET,
            detection_resize=HALF_PIXELS,
            detection_pixels=HALVES,
        ),
        Dialect("torchvision-v2", False, 1e-5, False, TORCHVISION_V2, IMAGENET),  # its weights IMAGENET1K_V2
        Dialect("timm", False, 1e-5, False, TIMM, IMAGENET, v1_pixels=HALVES),
        Dialect(
            "tflite",
            True,
            1e-3,
            True,
            STRETCH_BILINEAR,
            segmentation_resize=stretch_on_canvas,
            detection_resize=HALF_PIXELS,
        ),
    )
}


def find_dialect(name: str) -> Dialect:
    """Return the row of that name."""
    if name not in DIALECTS:
        raise FormatError(f"dialect: expected one of {', '.join(DIALECTS)}, got {name!r}")
    return DIALECTS[name]


class Normalization(NamedTuple):
    """What an image processor makes of bytes: (byte * factor - mean) / std. Shapes: mean, std (C)."""

    factor: float
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def read_normalization(settings: Mapping[str, Any], channels: int) -> Normalization:
    """Return what `preprocessor_config.json` makes of bytes, with transformers' defaults for what it leaves out.

    Raises FormatError for means or deviations of another number of channels.
    """
    factor = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
    has_pixels = settings.get("do_normalize", True)
    found = [np.asarray(settings.get(name, 0.5), np.float64).reshape(-1) for name in ("image_mean", "image_std")]
    for values in found:
        if values.size not in (1, channels):
            raise FormatError(
                f"preprocessor_config.json: expected image_mean and image_std of 1 or {channels} numbers, found "
                f"{values.size}"
            )
    mean, std = (np.broadcast_to(values, (channels,)) for values in found)
    return Normalization(factor, mean, std) if has_pixels else Normalization(factor, 0 * mean, np.ones(channels))


def settle_bytes(settings: Mapping[str, Any], scale: float, zero: int, channels: int) -> Settings:
    """Return an image processor's settings with which byte q becomes the pixel value scale * (q - zero)."""
    mean, deviation = round(zero / 255, 9), float(f"{1 / (255 * scale):.9g}")
    normalization = {"image_mean": [mean] * channels, "image_std": [deviation] * channels}
    return {**settings, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **normalization}


def processor_settings(dialect: Dialect, architecture: str, image_size: tuple[int, int], channels: int = 3) -> Settings:
    """Return what `preprocessor_config.json` says in this school, for pictures of `image_size` (height, width).

    `architecture` is one of `checkpoint.ARCHITECTURES`. Where a network has other than three `channels`, each gets the
    average of the three.
    """
    height, width = image_size
    family = architecture[: len("MobileNetV1")]
    pixels = (dialect.v1_pixels if family == "MobileNetV1" else None) or dialect.pixels
    pixels = (dialect.detection_pixels if architecture.endswith("ObjectDetection") else None) or pixels
    special = {"Segmentation": dialect.segmentation_resize, "ObjectDetection": dialect.detection_resize}
    resize = special.get(architecture.rpartition("For")[2].removeprefix("Semantic")) or dialect.resize

    def fit(numbers: tuple[float, float, float]) -> list[float]:
        return list(numbers) if channels == 3 else [round(sum(numbers) / 3, 6)] * channels

    return {
        "image_processor_type": f"{family}ImageProcessor",
        "do_resize": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": pixels.factor,
        "do_normalize": True,
        "image_mean": fit(pixels.mean),
        "image_std": fit(pixels.std),
        **resize(height, width),
    }
