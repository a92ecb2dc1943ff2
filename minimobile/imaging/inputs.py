"""What an image processor accepts: files, PIL images, arrays, tensors, batches and lists, brought to one form each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.arrays import read_array
from minimobile.errors import InputError
from minimobile.imaging.pictures import check_image, convert_image, describe_source, open_image, open_upright
from minimobile.imaging.transforms import flatten_alpha

_DEPTH = 4  # of lists in lists
_CHANNEL_COUNTS = (1, 3, 4)  # what a layout is recognised by


def flatten_images(images: Any, rank: int, name: str) -> list[tuple[Any, str]]:
    """List single pictures (files, PIL images, arrays of `rank` axes) and how to call them in messages."""
    if isinstance(images, (list, tuple)):
        if name.count("[") >= _DEPTH:
            raise InputError(f"{name}: expected lists nested at most {_DEPTH} deep")
        items = [item for index, part in enumerate(images) for item in flatten_images(part, rank, f"{name}[{index}]")]
    elif isinstance(images, (str, Path, bytes, bytearray, Image.Image)):
        return [(images, name)]
    else:
        array = to_array(images, name)
        if array.ndim not in (rank, rank + 1):
            expected = "(H, W, C) or (C, H, W)" if rank == 3 else "(H, W)"
            raise InputError(f"{name}: expected an array {expected}, or a batch of them, got shape {array.shape}")
        if array.ndim == rank and array.size == 0:
            raise InputError(f"{name}: expected a picture of at least 1x1 pixels, got shape {array.shape}")
        items = [(array, name)] if array.ndim == rank else [(part, f"{name}[{i}]") for i, part in enumerate(array)]
    if not items:
        raise InputError(f"{name}: expected at least one picture, got none")
    return items


def to_array(value: Any, name: str) -> NDArray[Any]:
    """Make an array of whatever offers one (NumPy, torch, jax, ...), without a copy where that is possible."""
    if not hasattr(value, "__array__"):
        raise InputError(f"{name}: expected a path, bytes, a PIL image or an array, got {type(value).__name__}")
    array = read_array(value, name)
    if array.dtype.kind not in "buif":
        raise InputError(f"{name}: expected an array of integers, floats or booleans, got {array.dtype}")
    return array


def open_picture(source: Any, chosen: SimpleNamespace, name: str) -> Image.Image | NDArray[Any]:
    """Open a picture in the mode that the settings ask for; an array where PIL's own mode is to be kept.

    Files are brought upright by their EXIF orientation, image objects are taken as they are: transformers' `load_image`
    does the one, its processors the other.
    """
    channels = len(chosen.image_mean) if chosen.do_normalize and isinstance(chosen.image_mean, tuple) else 3
    if isinstance(source, Image.Image):
        image = check_image(source)
        if chosen.do_convert_rgb:
            return convert_image(image, composite=True, name=name)
        if chosen.do_convert_rgb is False:
            return split_planes(np.asarray(image))
        if channels == 4 and image.mode == "RGBA":
            return image
    else:
        image = open_image(source)  # as transformers: files are RGB before any setting is looked at
        name = describe_source(source)
    return convert_image(image, "L" if channels == 1 else "RGB", name=name)


def split_planes(pixels: NDArray[Any]) -> NDArray[Any]:
    """Turn PIL's pixels (H, W) or (H, W, C) to (C, H, W)."""
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def bring_channels_first(array: NDArray[Any], chosen: SimpleNamespace, name: str) -> NDArray[Any]:
    """Turn an array (H, W, C) or (C, H, W) to (C, H, W), and to RGB where the settings say so."""
    layout = chosen.input_data_format
    if layout is None:
        first, last = array.shape[0] in _CHANNEL_COUNTS, array.shape[2] in _CHANNEL_COUNTS
        if first == last:
            problem = "either end of the shape may be" if first else "neither end of the shape is"
            raise InputError(
                f"{name}: {problem} the channels (1, 3 or 4) in {array.shape}; pass input_data_format='channels_first' "
                f"or 'channels_last'"
            )
        layout = "channels_first" if first else "channels_last"
    image = array if layout == "channels_first" else np.moveaxis(array, -1, 0)
    return flatten_alpha(image) if chosen.do_convert_rgb else image


def open_labels(item: Any, name: str) -> NDArray[Any]:
    """Make an array of class ids (H, W) of an array, a PIL image or a file; palette images give their indices."""
    if not isinstance(item, np.ndarray):
        item = check_image(item) if isinstance(item, Image.Image) else open_upright(item)
    labels = read_array(item, name)
    if labels.ndim != 2:
        raise InputError(f"{name}: expected class ids (H, W), as a palette or grey image has them, got {labels.shape}")
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels)):
        raise InputError(f"{name}: expected class ids that are whole numbers, got fractions")
    return labels
