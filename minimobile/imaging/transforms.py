"""The steps of an image processor on one picture, (C, H, W) arrays in and out: resize, crop, pad, rescale, normalise.

Every rounding and change of type is that of transformers' PIL processors (version 5.23): the results are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from minimobile.errors import InputError
from minimobile.imaging.filters import QUICK_FILTERS
from minimobile.imaging.pillow_memory import view_pixels
from minimobile.imaging.resampling import WINDOW_FILTERS, resize_window

WHOLE_PIXELS = 1 << 26  # above this, resize never computes more than the part that the crop will keep
MAX_RESIZED_PIXELS = 1 << 28
QUICK_EDGE = 1 << 15  # beyond it weights take more memory than they save time


def resized_size(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """Compute the (height, width) that `size` asks for; every division truncates, `round` occurs where two edges bind.

    `size` holds height and width; or shortest_edge; or shortest_edge and longest_edge (the latter wins); or max_height
    and max_width (the largest picture of the same shape within both).

    >>> resized_size(480, 640, {"shortest_edge": 256})
    (256, 341)
    """
    if "height" in size:
        new = size["height"], size["width"]
    elif "max_height" in size:
        factor = min(size["max_height"] / height, size["max_width"] / width)
        new = int(height * factor), int(width * factor)
    elif "shortest_edge" in size:
        new = _fit_shortest_edge(height, width, size["shortest_edge"], size.get("longest_edge"))
    else:
        raise InputError(
            f"image processor: expected size to hold height and width, shortest_edge, or max_height and max_width, "
            f"got {dict(size)}"
        )
    if min(new) < 1:
        raise InputError(
            f"image processor: resizing {height}x{width} by {dict(size)} would give {new[0]}x{new[1]}; enlarge size"
        )
    return new


def _fit_shortest_edge(height: int, width: int, edge: int, longest: int | None) -> tuple[int, int]:
    short, long = min(height, width), max(height, width)
    exact: float = edge
    if longest is not None and long / short * edge > longest:
        exact = longest * short / long
        edge = round(exact)
    new_long = long if longest is not None and edge == short else int(exact * long / short)
    return (edge, new_long) if height <= width else (new_long, edge)


def resize(
    picture: Image.Image | NDArray[Any],
    size: tuple[int, int],
    resample: int,
    crop: tuple[int, int] | None = None,
    rounding: str | None = None,
) -> NDArray[Any]:
    """Resize as PIL does, in 8 bits; by PIL or, with the same result, by kernels that compute centre-crop's part alone.

    `crop` and `rounding` are what `center_crop` will be asked for.

    Floats that are whole numbers in 0..255 are taken as such (the result is uint8); others must lie in 0..1: they are
    scaled to 0..255, truncated, resized, and scaled back to float32.

    Shapes: picture a PIL image or (C, h, w), result (C, H, W), or the middle of it.
    """
    scaled = False
    if not isinstance(picture, Image.Image):
        scaled = _must_scale(picture)
        picture = _to_pil(rescale(picture, 255) if scaled else picture)
    height, width = size
    is_quick = resample in QUICK_FILTERS and max(*picture.size, *size) <= QUICK_EDGE and picture.size != (width, height)
    pixels = view_pixels(picture) if is_quick else None
    can_window = crop is not None and resample in WINDOW_FILTERS and picture.mode in ("L", "RGB")
    if pixels is None and can_window and height * width > WHOLE_PIXELS:
        pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)  # (h, w, C)
    if pixels is not None:
        resized = resize_window(pixels, size, resample, _kept_window(size, crop, rounding))
    elif height * width > MAX_RESIZED_PIXELS:
        raise too_large(size)
    else:
        resized = np.asarray(picture.resize((width, height), Resampling(resample)))
    resized = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)  # (C, H, W)
    return rescale(resized, 1 / 255) if scaled else resized


def resize_labels(
    labels: NDArray[np.int64],
    size: tuple[int, int],
    crop: tuple[int, int] | None = None,
    rounding: str | None = None,
) -> NDArray[np.int64]:
    """Resize class ids by PIL's NEAREST; only centre-crop's part of the result, if there is to be one.

    Shapes: labels (h, w), result (H, W), or the middle of it.
    """
    window = _kept_window(size, crop, rounding)
    resized: NDArray[np.int64] = resize_window(labels[..., None], size, Resampling.NEAREST, window)[..., 0]
    return resized


def _kept_window(
    size: tuple[int, int], crop: tuple[int, int] | None, rounding: str | None
) -> tuple[int, int, int, int]:
    """Give (top, left, height, width) of what a crop keeps of a picture of this size."""
    height, width = size if crop is None else (min(crop[0], size[0]), min(crop[1], size[1]))
    if height * width > MAX_RESIZED_PIXELS:
        raise too_large(size)
    return _crop_start(size[0], height, rounding), _crop_start(size[1], width, rounding), height, width


def too_large(size: tuple[int, int], limit: int = MAX_RESIZED_PIXELS) -> InputError:
    """Return the error that refuses to resize a picture to more pixels than `limit`."""
    return InputError(
        f"image processor: resizing to {size[0]}x{size[1]} would make more than {limit} pixels; "
        f"crop the picture, or choose a smaller size"
    )


def _must_scale(image: NDArray[Any]) -> bool:
    """Tell whether the values are 0..1 rather than 0..255; refuse anything else."""
    if image.dtype == np.uint8:
        return False
    with np.errstate(invalid="ignore"):  # NaN and infinity are refused below
        low, high = image.min(), image.max()
        whole = image.dtype.kind in "iub" or np.allclose(image, image.astype(int))
    if whole and low >= 0 and high <= 255:
        return False
    if not whole and low >= 0 and high <= 1:
        return True
    raise InputError(
        f"image processor: to be resized, pixels must be whole numbers in 0..255 or floats in 0..1, got {image.dtype} "
        f"from {low} to {high}; scale them, or pass do_resize=False"
    )


def _to_pil(image: NDArray[Any]) -> Image.Image:
    """Make a PIL image of (C, H, W) values in 0..255, dropping fractions."""
    if image.shape[0] > 4:
        raise InputError(
            f"image processor: only pictures of 1 to 4 channels can be resized, got {image.shape[0]} channels"
        )
    pixels = np.moveaxis(image.astype(np.uint8, copy=False), 0, -1)  # (H, W, C)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def center_crop(image: NDArray[Any], height: int, width: int, rounding: str | None = None) -> NDArray[Any]:
    """Cut out the middle, or pad with zeros where the picture is smaller.

    An odd rest goes below and to the right when cutting, above and to the left when padding. With the rounding
    "half_even" half of an odd rest is rounded to the even number when cutting, as in torchvision.

    Shapes: image (C, H, W), result (C, height, width); without padding, a view.
    """
    channels, old_height, old_width = image.shape
    if (old_height, old_width) == (height, width):
        return image
    top, left = _crop_start(old_height, height, rounding), _crop_start(old_width, width, rounding)
    middle = image[:, max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    if middle.shape[1:] == (height, width):
        return middle
    out = np.zeros((channels, height, width), image.dtype)
    top, left = max(-top, 0), max(-left, 0)
    out[:, top : top + middle.shape[1], left : left + middle.shape[2]] = middle
    return out


def _crop_start(old: int, new: int, rounding: str | None) -> int:
    """Give the first row or column to keep; negative when padding."""
    return round((old - new) / 2) if rounding == "half_even" and old > new else (old - new) // 2


def pad(image: NDArray[Any], height: int, width: int, value: float = 0, name: str = "pad_size") -> NDArray[Any]:
    """Pad below and to the right; `name` is the setting that says so.

    Shapes: image (C, H, W), result (C, height, width).
    """
    channels, old_height, old_width = image.shape
    if old_height > height or old_width > width:
        raise InputError(
            f"image processor: {name} {height}x{width} is smaller than the picture, {old_height}x{old_width}; "
            f"enlarge {name}, or shrink the picture"
        )
    out = np.full((channels, height, width), value, image.dtype)
    out[:, :old_height, :old_width] = image
    return out


def rescale(image: NDArray[Any], factor: float) -> NDArray[np.float32]:
    """Multiply in float64, round once to float32."""
    rescaled = np.empty(image.shape, np.float32)
    np.multiply(image, factor, out=rescaled, dtype=np.float64, casting="same_kind")  # by astype half as long again
    return rescaled


def normalize(image: NDArray[Any], mean: float | Sequence[float], std: float | Sequence[float]) -> NDArray[Any]:
    """Compute `(image - mean) / std` per channel, in the float type of `image`, float32 for integers.

    Shapes: image (C, H, W); mean and std scalars or of length C.
    """
    if image.dtype.kind != "f":
        image = image.astype(np.float32)
    normalized: NDArray[Any] = image - _per_channel(image, mean, "image_mean")
    normalized /= _per_channel(image, std, "image_std")
    return normalized


def _per_channel(image: NDArray[Any], values: float | Sequence[float], name: str) -> NDArray[Any]:
    channels = image.shape[0]
    if isinstance(values, Sequence) and len(values) != channels:
        raise InputError(
            f"image processor: expected pictures of {len(values)} channels ({name} has {len(values)} values), "
            f"got {channels}; convert them, or pass do_convert_rgb=True"
        )
    return np.array(values if isinstance(values, Sequence) else [values] * channels, image.dtype)[:, None, None]


def flatten_alpha(image: NDArray[Any]) -> NDArray[Any]:
    """Make three channels of one (repeated) or four (laid on white); floats with alpha must lie in 0..1.

    Shapes: image (C, H, W), result (3, H, W).
    """
    channels = image.shape[0]
    if channels == 1:
        return np.repeat(image, 3, axis=0)
    if channels != 4:
        return image
    if image.dtype == np.int8:
        raise InputError("image processor: int8 cannot hold the alpha value 255; pass uint8")
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise InputError(
            f"image processor: floats with an alpha channel must lie in 0..1, got {image.min()} to {image.max()}"
        )
    whole = image.dtype.kind in "iu"
    white = 255 if whole else 1.0
    alpha = image[3:] / white
    mixed: NDArray[Any] = alpha * image[:3] + (1 - alpha) * white
    return (mixed.round() if whole else mixed).astype(image.dtype, copy=False)


def reduce_labels(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Count classes from 0 where they were counted from 1: 0 and 255 (no class) become 255, others lose 1."""
    labels = labels.astype(np.int64)
    return np.where((labels == 0) | (labels == 255), 255, labels - 1)
