"""The steps of an image processor in their order, for one picture or one map of class ids."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.execution.pixel_bytes import PixelBytes
from minimobile.imaging.inputs import bring_channels_first, open_labels, open_picture, split_planes
from minimobile.imaging.settings import ALIGN_CORNERS, HALF_PIXEL
from minimobile.imaging.tensorflow_transforms import (
    central_crop,
    multiply,
    resize_bilinear,
    resize_half_pixel,
    resize_nearest,
)
from minimobile.imaging.transforms import (
    center_crop,
    normalize,
    pad,
    reduce_labels,
    rescale,
    resize,
    resize_labels,
    resized_size,
)

_Numbers = float | tuple[float, ...] | None
IGNORED_CLASS = 255  # DeepLab's, and the default of a config's semantic_loss_ignore_index


def process_image(item: Any, chosen: SimpleNamespace, name: str) -> NDArray[Any]:
    """Bring one picture through all steps: (C, H, W), an array of its own."""
    made = prepare_image(item, chosen, name)
    if isinstance(made, PixelBytes):
        image: NDArray[Any] = np.asarray(made)[0]
        return image
    return made.copy() if made is item else made


def prepare_image(item: Any, chosen: SimpleNamespace, name: str) -> PixelBytes | NDArray[Any]:
    """Bring one picture through all steps: its bytes with what they stand for, or where that is not so, (C, H, W).

    Central crop, resizing, centre crop, canvas, rescaling, normalisation; `rescale_first` puts rescaling before
    resizing. `chosen` are the settings, `name` is what to call the picture in errors.
    """
    picture = (
        bring_channels_first(item, chosen, name) if isinstance(item, np.ndarray) else open_picture(item, chosen, name)
    )
    if chosen.central_fraction is not None:
        picture = central_crop(_read_pixels(picture), chosen.central_fraction)
    crop = _find_crop(chosen)
    image = _resize(picture, chosen, crop)
    if crop is not None:
        image = center_crop(image, *crop, chosen.crop_rounding)
    if chosen.canvas_size is not None:
        image = pad(image.astype(np.float32), *_canvas(chosen), chosen.canvas_value, "canvas_size")
    if image.dtype == np.uint8 and image[0].size > 256:
        factor, mean, std = _find_scaling(chosen)
        values = _tabulate(len(image), chosen.resize_method is None, factor, mean, std)
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))  # (H, W, C), as Pillow and our kernels have it
        return PixelBytes(pixels, values) if values.dtype == np.float32 else image.copy()
    return _scale(np.ascontiguousarray(image), chosen.resize_method is None, *_find_scaling(chosen))


def _find_scaling(chosen: SimpleNamespace) -> tuple[float | None, _Numbers, _Numbers]:
    """Return the factor, the mean and the deviation by which values are still to be scaled; None where they are not."""
    factor = chosen.rescale_factor if chosen.do_rescale and not chosen.rescale_first else None
    return (factor, chosen.image_mean, chosen.image_std) if chosen.do_normalize else (factor, None, None)


def _scale(image: NDArray[Any], is_pillow: bool, factor: float | None, mean: _Numbers, std: _Numbers) -> NDArray[Any]:
    """Rescale and normalise; what each value becomes depends on it and on its channel alone."""
    if factor is not None:
        image = (rescale if is_pillow else multiply)(image, factor)
    return image if mean is None or std is None else normalize(image, mean, std)


@functools.lru_cache(maxsize=16)
def _tabulate(channels: int, is_pillow: bool, factor: float | None, mean: _Numbers, std: _Numbers) -> NDArray[Any]:
    """Return what becomes of every byte of every channel, (C, 256), which cannot be written to: pictures share it."""
    every = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
    values = np.ascontiguousarray(_scale(every, is_pillow, factor, mean, std)[:, 0])
    values.setflags(write=False)
    return values


def process_map(item: Any, chosen: SimpleNamespace, name: str) -> NDArray[np.int64]:
    """Bring one map of class ids through the steps that move pixels, by the nearest: (H, W).

    A canvas is filled with 255, which is no class.
    """
    labels = open_labels(item, name)
    labels = reduce_labels(labels) if chosen.do_reduce_labels else labels.astype(np.int64)
    if chosen.central_fraction is not None:
        labels = central_crop(labels[None], chosen.central_fraction)[0]
    crop = _find_crop(chosen)
    if chosen.do_resize:
        size = resized_size(labels.shape[0], labels.shape[1], chosen.size)
        if chosen.resize_method == ALIGN_CORNERS:
            labels = resize_nearest(labels, size)
        else:
            labels = resize_labels(labels, size, crop, chosen.crop_rounding)
    if crop is not None:
        labels = center_crop(labels[None], *crop, chosen.crop_rounding)[0]
    if chosen.canvas_size is not None:
        labels = pad(labels[None], *_canvas(chosen), IGNORED_CLASS, "canvas_size")[0]
    return labels


def _resize(picture: Image.Image | NDArray[Any], chosen: SimpleNamespace, crop: tuple[int, int] | None) -> NDArray[Any]:
    """Resize in the way that the settings choose, if they do."""
    size = None
    if chosen.do_resize:
        height, width = picture.size[::-1] if isinstance(picture, Image.Image) else picture.shape[1:]
        size = resized_size(height, width, chosen.size)
    if chosen.resize_method is None:
        if size is None:
            return _read_pixels(picture)
        return resize(picture, size, chosen.resample, crop, chosen.crop_rounding)
    pixels = _read_pixels(picture)
    if chosen.resize_method == HALF_PIXEL and size is not None:
        pixels, size = resize_half_pixel(pixels, size), None
    factor = chosen.rescale_factor if chosen.do_rescale and chosen.rescale_first else None
    if size is not None:
        return resize_bilinear(pixels, size, align_corners=chosen.resize_method == ALIGN_CORNERS, factor=factor)
    return pixels if factor is None else multiply(pixels, factor)


def _find_crop(chosen: SimpleNamespace) -> tuple[int, int] | None:
    return (chosen.crop_size["height"], chosen.crop_size["width"]) if chosen.do_center_crop else None


def _canvas(chosen: SimpleNamespace) -> tuple[int, int]:
    return chosen.canvas_size["height"], chosen.canvas_size["width"]


def _read_pixels(picture: Image.Image | NDArray[Any]) -> NDArray[Any]:
    return split_planes(np.asarray(picture)) if isinstance(picture, Image.Image) else picture
