"""What callers hand to a model, checked once at the border: pixel values, data format, layers asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minimobile.arrays import read_array
from minimobile.errors import InputError, within_memory

LARGEST_EXACT_INTEGER = 2**24  # in float32


@within_memory("pixel_values")
def read_pixel_values(
    pixel_values: ArrayLike | None, channels: int, data_format: str, dtype: DTypeLike = "float32"
) -> NDArray[Any]:
    """Return pixel values (N, C, H, W), or (N, H, W, C) for "channels_last", as an array of `dtype`.

    Anything NumPy can read is taken: arrays, tensors on the CPU, lists of images of one size. float16 and float64 are
    rounded to `dtype`; integers are taken as they are (not scaled). Finite values beyond float32 and integers that
    it cannot hold are refused, as are complex numbers, booleans, objects and text. NaN and infinity pass through.
    """
    if not isinstance(data_format, str) or data_format not in ("channels_first", "channels_last"):
        raise InputError(f"data_format: expected channels_first or channels_last, got {data_format!r}")
    if pixel_values is None:
        raise InputError("pixel_values: expected images, got None; you have to specify pixel_values")
    values = read_array(pixel_values, "pixel_values", "an array of images of one size")
    if values.dtype.kind not in "fiu":
        raise InputError(f"pixel_values: expected floating-point numbers, got {values.dtype}")
    layout = "(N, C, H, W)" if data_format == "channels_first" else "(N, H, W, C)"
    if values.ndim != 4:
        hint = "; add an axis for the batch in front" if values.ndim == 3 else ""
        raise InputError(f"pixel_values: expected {layout}, got shape {values.shape}{hint}")
    axis = 1 if data_format == "channels_first" else 3
    if values.shape[axis] != channels:
        other = "channels_last" if axis == 1 else "channels_first"
        hint = f"; say data_format={other!r}" if values.shape[4 - axis] == channels else ""
        raise InputError(f"pixel_values: expected {channels} channels in {layout}, got shape {values.shape}{hint}")
    if 0 in values.shape:
        raise InputError(f"pixel_values: expected at least one image of at least 1x1 pixels, got shape {values.shape}")
    return _convert(values, np.dtype(dtype))


def _convert(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if values.dtype == dtype:
        return values
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
        low, high = int(values.min()), int(values.max())
        if max(-low, high) > LARGEST_EXACT_INTEGER:
            raise InputError(f"pixel_values: expected integers up to {LARGEST_EXACT_INTEGER}, got {max(-low, high)}")
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if values.dtype.itemsize > dtype.itemsize and np.any(np.isinf(converted) & np.isfinite(values)):
        raise InputError(f"pixel_values: expected values that {dtype} can hold, got larger ones in {values.dtype}")
    return converted


def read_stored(array: ArrayLike) -> NDArray[Any]:
    """Return what is to go into a quantised file as it is; the runner says whether it fits."""
    return read_array(array, "run_quantized")


def read_layers(layers: object, name: str) -> list[str | int]:
    """Return the layers asked for as a list; `name` is the argument they came in."""
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise InputError(f"{name}: expected a list of layer names or hidden-state indices, got {layers!r}")
    return [int(layer) if isinstance(layer, np.integer) else layer for layer in layers]
