"""TensorFlow's steps on one picture, (C, H, W) arrays in and out: in float32, in the order of its own operations.

The results equal those of TensorFlow's CPU kernels to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.imaging.resampling import interpolate_bilinear
from minimobile.imaging.transforms import MAX_RESIZED_PIXELS, too_large

MAX_FLOAT_PIXELS = 1 << 26


def central_crop(image: NDArray[Any], fraction: float) -> NDArray[Any]:
    """Keep the middle `fraction` of height and width, as `tf.image.central_crop` does; an odd rest stays in.

    Shapes: image (C, H, W), result (C, h, w), a view.

    >>> central_crop(np.zeros((3, 224, 40)), 0.875).shape
    (3, 196, 36)
    """
    _, height, width = image.shape
    top, left = (int((n - n * fraction) / 2) for n in (float(height), float(width)))
    return image[:, top : height - top, left : width - left]


def multiply(image: NDArray[Any], factor: float) -> NDArray[np.float32]:
    """Multiply in float32, as `tf.image.convert_image_dtype` does from bytes to 0..1."""
    scaled: NDArray[np.float32] = image.astype(np.float32) * np.float32(factor)
    return scaled


def resize_bilinear(
    image: NDArray[Any], size: tuple[int, int], *, align_corners: bool, factor: float | None = None
) -> NDArray[np.float32]:
    """Resize as `tf.compat.v1.image.resize_bilinear` does: without half pixels and without antialiasing.

    Output i reads the input at `i * n_in / n_out`, or at `i * (n_in - 1) / (n_out - 1)` for `align_corners`.

    Args:
        image: (C, h, w), of any type; it becomes float32.
        size: (height, width) of the result.
        align_corners: corner pixels stay corner pixels.
        factor: what to multiply the pixels with before.

    Raises:
        InputError: the result would have more than `MAX_FLOAT_PIXELS` pixels.

    Source: TensorFlow, `core/kernels/image/resize_bilinear_op.cc`.

    >>> resize_bilinear(np.array([[[0, 4]]]), (1, 4), align_corners=False)
    array([[[0., 2., 4., 4.]]], dtype=float32)
    """
    if size[0] * size[1] > MAX_FLOAT_PIXELS:
        raise too_large(size, MAX_FLOAT_PIXELS)
    top, bottom, down = _taps(image.shape[1], size[0], align_corners)
    left, right, across = _taps(image.shape[2], size[1], align_corners)

    def read(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        pixels = image[:, rows[:, None], columns]  # (C, H, W): never a float for each pixel of a large photo
        return pixels.astype(np.float32) if factor is None else multiply(pixels, factor)

    def blend_columns(rows: NDArray[np.intp]) -> NDArray[np.float32]:
        pixels = read(rows, left)
        pixels += (read(rows, right) - pixels) * across
        return pixels

    resized = blend_columns(top)
    resized += (blend_columns(bottom) - resized) * down[:, None]
    return resized


def resize_half_pixel(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize bilinearly with half pixels and without antialiasing, as TFLite's Task library does; bytes stay bytes.

    Output i reads the input at `(i + 0.5) * n_in / n_out - 0.5`. Sums are float64, rounded to the nearest byte.

    Shapes: image (C, h, w), size (H, W), result (C, H, W), of bytes for bytes, else float32.

    >>> resize_half_pixel(np.array([[[0, 4]]], np.uint8), (1, 4))
    array([[[0, 1, 3, 4]]], dtype=uint8)
    """
    if size[0] * size[1] > MAX_FLOAT_PIXELS:
        raise too_large(size, MAX_FLOAT_PIXELS)
    resized = interpolate_bilinear(image.astype(np.float64), size)
    return np.floor(resized + 0.5).astype(np.uint8) if image.dtype == np.uint8 else resized.astype(np.float32)


def resize_nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize as `tf.compat.v1.image.resize_nearest_neighbor` does with align_corners=True.

    Shapes: values (..., h, w), result (..., H, W), of the same type.

    Source: TensorFlow, `core/kernels/image/resize_nearest_neighbor_op.cc`.

    >>> resize_nearest(np.array([[1, 2, 3]]), (1, 5))
    array([[1, 2, 2, 3, 3]])
    """
    if size[0] * size[1] > MAX_RESIZED_PIXELS:
        raise too_large(size)
    rows, columns = _nearest(values.shape[-2], size[0]), _nearest(values.shape[-1], size[1])
    resized: NDArray[Any] = values[..., rows[:, None], columns]
    return resized


def _taps(n_in: int, n_out: int, align_corners: bool) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Give the two samples that each output lies between, and its distance from the first."""
    position = np.arange(n_out, dtype=np.float32) * _step(n_in, n_out, align_corners)
    floor = np.floor(position)
    high = np.minimum(np.ceil(position).astype(np.intp), n_in - 1)
    return np.minimum(floor.astype(np.intp), high), high, position - floor


def _nearest(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Give the source of each output of `resize_nearest_neighbor(align_corners=True)`; halves are rounded up."""
    position = np.arange(n_out, dtype=np.float32) * _step(n_in, n_out, True)
    return np.minimum(np.floor(position.astype(np.float64) + 0.5).astype(np.intp), n_in - 1)


def _step(n_in: int, n_out: int, align_corners: bool) -> np.float32:
    """Give the distance in the input between neighbours of the output."""
    if align_corners and n_out > 1:
        n_in, n_out = n_in - 1, n_out - 1
    step: np.float32 = np.float32(n_in) / np.float32(n_out)
    return step
