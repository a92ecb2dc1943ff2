"""Resampling: bilinear upsampling of logits, and a window of what Pillow makes of a picture.

The window is what a crop keeps. The whole may be absurd: 1x10000 at a shortest edge of 256 gives 650 megapixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import __version__ as _PILLOW_VERSION
from PIL.Image import Resampling

from minimobile.execution.pixel_bytes import PixelBytes
from minimobile.imaging.filters import FILTERS, Taps, find_taps
from minimobile_kernels import entries
from minimobile_kernels.class_map_sizes import work_sizes
from minimobile_kernels.reference import blend, interpolation_points

_BAND_VALUES = 1 << 17  # float64 values of one band of upsampled rows: 1 MiB, about a second-level cache
_BAND_PIXELS = 1 << 20  # of one band of classes
_PILLOW_CHOOSES_ORDER = int(_PILLOW_VERSION.split(".")[0]) >= 13  # before, the horizontal pass always came first


def interpolate_bilinear(x: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False) -> NDArray[Any]:
    """Resize channels bilinearly, without antialiasing.

    Defined by `reference.resize_bilinear` of the kernels; band by band.

    Shapes: x (C, h, w), size (H, W), result (C, H, W).

    >>> interpolate_bilinear(np.array([[[0.0, 4.0]]]), (1, 4))
    array([[[0., 1., 3., 4.]]])
    """
    out = np.empty((x.shape[0], *size), x.dtype)
    for rows, band in _interpolate_bands(x, size, align_corners):
        out[:, rows] = band
    return out


def argmax_bilinear(
    x: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False, dtype: DTypeLike = np.int64
) -> NDArray[Any]:
    """Compute `interpolate_bilinear(...).argmax(0)` as `dtype`, without ever holding all of the upsampled channels.

    Shapes: x (C, h, w), size (H, W), result (H, W).
    """
    out = np.empty(size, dtype)
    bands = _choose_bands if x.dtype == np.float32 and len(x) < 1 << 16 and x.shape[1:] != (1, 1) else _argmax_bands
    for rows, band in bands(x, size, align_corners):
        out[rows] = band
    return out


def _argmax_bands(
    x: NDArray[Any], size: tuple[int, int], align_corners: bool
) -> Iterator[tuple[slice, NDArray[np.intp]]]:
    """Yield rows of the result and their classes: the definition of `_choose_bands`."""
    for rows, band in _interpolate_bands(x, size, align_corners):
        yield rows, band.argmax(0)


def _choose_bands(
    x: NDArray[np.float32], size: tuple[int, int], align_corners: bool
) -> Iterator[tuple[slice, NDArray[np.uint16]]]:
    """Yield rows of the result and their classes, as compiled code finds them: 513 x 513 x 21 in 7 ms instead of 75."""
    height, width = size
    upper, lower, down = interpolation_points(x.shape[1], height, align_corners)
    left, right, across = interpolation_points(x.shape[2], width, align_corners)
    vertical, horizontal = np.stack([upper, lower]), np.stack([left, right]).astype(np.uint64)
    shape, count = work_sizes(len(x), width)
    kept, best = np.empty(shape), np.empty(count, np.float32)
    step = max(1, _BAND_PIXELS // width)
    band = np.empty((min(step, height), width), np.uint16)
    logits = np.ascontiguousarray(x)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        found = band[: rows.stop - start]
        entries.find_classes(
            logits, np.ascontiguousarray(vertical[:, rows]), down[rows], horizontal, across, kept, best, found
        )
        yield rows, found


def _interpolate_bands(
    x: NDArray[Any], size: tuple[int, int], align_corners: bool
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield rows of the result and their values, (C, rows, W)."""
    channels, h, w = x.shape
    height, width = size
    upper, lower, down = interpolation_points(h, height, align_corners)
    left, right, across = interpolation_points(w, width, align_corners)
    count = max(1, _BAND_VALUES // max(1, channels * width))
    for start in range(0, height, count):
        rows = slice(start, min(start + count, height))
        if (h, w) == (1, 1):  # a single pixel is repeated, even where infinity times zero were not a number
            yield rows, np.broadcast_to(x, (channels, rows.stop - start, width))
            continue
        top, bottom = upper[start], lower[rows.stop - 1]
        read = x[:, top : bottom + 1].astype(np.float64)
        read = blend(read[:, :, left], read[:, :, right], across)  # (C, rows read, W)
        band = blend(read[:, upper[rows] - top], read[:, lower[rows] - top], down[rows, None])
        yield rows, band.astype(x.dtype, copy=False)


def resize_window(
    pixels: NDArray[Any], size: tuple[int, int], resample: int, window: tuple[int, int, int, int]
) -> NDArray[Any]:
    """Give a window of what `PIL.Image.resize` makes of an 8-bit grey or RGB picture, to the bit; compute no more.

    Each output is a weighted sum of the inputs under the filter, which is widened when shrinking; weights are rounded
    to 22 fractional bits, and each of the two passes rounds to 8 bits (Pillow, `src/libImaging/Resample.c`).

    Shapes: pixels (h, w, C) uint8, of four bytes as in `mix_passes` (for NEAREST of any type, and all are kept), size
    (H, W), window (top, left, height, width) within it, result (height, width, C).
    """
    h, w, _ = pixels.shape
    top, left, height, width = window
    if resample == Resampling.NEAREST:
        rows = _nearest(h, size[0])[top : top + height]
        columns = _nearest(w, size[1])[left : left + width]
        return pixels[rows[:, None], columns]
    read, down, across, rows_first = _find_passes(h, w, size, resample, window)
    return mix_passes(pixels[read], down, across, rows_first=rows_first)


@functools.lru_cache(maxsize=64)
def _find_passes(
    h: int, w: int, size: tuple[int, int], resample: int, window: tuple[int, int, int, int]
) -> tuple[tuple[slice, slice], Taps, Taps, bool]:
    """Return which rows and columns the two passes read, their taps down and across, and whether down is first.

    The first pass need not touch what the second will not read. The pictures of a folder have few sizes, so the taps of
    the last ones are kept, and nobody writes to them.
    """
    top, left, height, width = window
    down = find_taps(h, size[0], top, height, resample)
    across = find_taps(w, size[1], left, width, resample)
    if _PILLOW_CHOOSES_ORDER and h - size[0] > max(0, 2 * (w - size[1])):
        begin, end = across.reach
        return (slice(None), slice(begin, end)), down, across.shift(begin), True
    begin, end = down.reach
    return (slice(begin, end), slice(None)), down.shift(begin), across, False


def mix_passes(pixels: NDArray[np.uint8], down: Taps, across: Taps, *, rows_first: bool = False) -> NDArray[np.uint8]:
    """Resize every row and then every column, or the other way round; `reference.resample_bytes` along either axis.

    Shapes: pixels (h, w, C), result (H, W, C); of pixels of four bytes the last means nothing and is left out.
    """
    h, w, pixel = pixels.shape
    channels = min(pixel, 3)
    height, width = len(down.starts), len(across.starts)
    lines, line = (height, w * pixel) if rows_first else (h, width * channels)
    between, out = np.empty((lines, line), np.uint8), np.empty((height, width * channels), np.uint8)
    rows = np.ascontiguousarray(pixels).reshape(h, w * pixel)
    packed = np.empty((width, 1 + -(-across.weights.shape[1] // 4) * 4), np.int32)
    entries.resample(rows, *down, *across, between, packed, out, pixel, channels, int(rows_first))
    return out.reshape(height, width, channels)


def _nearest(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Give the source of each output pixel. Pillow adds up the step in float64, which a product would not reproduce."""
    steps = np.full(n_out, n_in / n_out)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.intp), n_in - 1)


_ENTRIES = (entries.find_classes, entries.resample, entries.look_up, entries.look_up_pixels)


def is_ready() -> bool:
    """Tell whether the kernels for pictures are compiled, in this process or on disk."""
    return all(entry.is_ready() for entry in _ENTRIES)


def warm_up() -> None:
    """Compile the kernels for pictures, or load them from disk."""
    argmax_bilinear(np.zeros((2, 2, 2), np.float32), (2, 2))
    resize_window(np.zeros((2, 2, 4), np.uint8), (1, 1), Resampling.BILINEAR, (0, 0, 1, 1))
    pixels = PixelBytes(np.zeros((1, 1, 3), np.uint8), np.zeros((3, 256), np.float32))
    np.asarray(pixels)
    pixels.look_up(np.zeros((3, 256), np.uint8))


WINDOW_FILTERS = frozenset({Resampling.NEAREST, *FILTERS})
"""What `resize_window` knows: Pillow's filters but for the newest, MKS2013 and MKS2021."""
