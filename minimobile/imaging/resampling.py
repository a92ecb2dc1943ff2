"""Resampling in NumPy: bilinear upsampling of logits, and Pillow's filters for a window of the resized picture.

The window is for pictures whose resized whole would be absurd (1x10000 at a shortest edge of 256: 650 megapixels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import __version__ as _PILLOW_VERSION
from PIL.Image import Resampling

from minimobile_kernels.class_map_sizes import work_sizes
from minimobile_kernels.entries import find_classes
from minimobile_kernels.reference import blend, interpolation_points

_BAND_VALUES = 1 << 17  # float64 values of one band of upsampled rows: 1 MiB, about a second-level cache
_BAND_PIXELS = 1 << 20  # of one band of classes
_PRECISION = 22  # fractional bits of Pillow's weights for 8-bit pictures
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
        find_classes(logits, np.ascontiguousarray(vertical[:, rows]), down[rows], horizontal, across, kept, best, found)
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


def is_ready() -> bool:
    """Tell whether the kernel that chooses classes is compiled, in this process or on disk."""
    return find_classes.is_ready()


def warm_up() -> None:
    """Compile the kernel that chooses classes, or load it from disk."""
    argmax_bilinear(np.zeros((2, 2, 2), np.float32), (2, 2))


def resize_window(
    pixels: NDArray[Any], size: tuple[int, int], resample: int, window: tuple[int, int, int, int]
) -> NDArray[Any]:
    """Give a window of what `PIL.Image.resize` makes of an 8-bit grey or RGB picture, to the bit; compute no more.

    Each output is a weighted sum of the inputs under the filter, which is widened when shrinking; weights are rounded
    to 22 fractional bits, and each of the two passes rounds to 8 bits (Pillow, `src/libImaging/Resample.c`).

    Shapes: pixels (h, w, C) uint8 (for NEAREST of any type), size (H, W), window (top, left, height, width) within it,
    result (height, width, C).
    """
    h, w, _ = pixels.shape
    top, left, height, width = window
    if resample == Resampling.NEAREST:
        rows = _nearest(h, size[0])[top : top + height]
        columns = _nearest(w, size[1])[left : left + width]
        return pixels[rows[:, None], columns]
    passes: list[tuple[int, int, int, int]] = [(1, size[1], left, width), (0, size[0], top, height)]
    if _PILLOW_CHOOSES_ORDER and h - size[0] > max(0, 2 * (w - size[1])):
        passes.reverse()
    # The first pass need not touch what the second will not read.
    axis, n_out, first, count = passes[1]
    taps = _pillow_taps(pixels.shape[axis], n_out, first, count, resample)
    begin, end = min(start for start, _ in taps), max(start + len(weights) for start, weights in taps)
    pixels = pixels[begin:end] if axis == 0 else pixels[:, begin:end]
    pixels = _resample_axis(pixels, passes[0][0], _pillow_taps(pixels.shape[passes[0][0]], *passes[0][1:], resample))
    return _resample_axis(pixels, axis, [(start - begin, weights) for start, weights in taps])


def _nearest(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Give the source of each output pixel. Pillow adds up the step in float64, which a product would not reproduce."""
    steps = np.full(n_out, n_in / n_out)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.intp), n_in - 1)


def _pillow_taps(n_in: int, n_out: int, first: int, count: int, resample: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Give, for outputs first..first + count, the first input and the integer weights."""
    if n_in == n_out:  # Pillow leaves the pass out
        return [(position, np.array([1 << _PRECISION])) for position in range(first, first + count)]
    support, weigh = _KERNELS[resample]
    scale = n_in / n_out
    widening = max(scale, 1.0)
    support *= widening
    taps = []
    for position in range(first, first + count):
        center = (position + 0.5) * scale
        begin = max(int(center - support + 0.5), 0)
        end = min(int(center + support + 0.5), n_in)
        weights = [weigh((k - center + 0.5) * (1.0 / widening)) for k in range(begin, end)]
        total = sum(weights)
        fixed = [weight / total * (1 << _PRECISION) for weight in weights]
        taps.append((begin, np.array([int(value + math.copysign(0.5, value)) for value in fixed], np.int64)))
    return taps


def _resample_axis(
    pixels: NDArray[np.uint8], axis: int, taps: list[tuple[int, NDArray[np.int64]]]
) -> NDArray[np.uint8]:
    moved = np.moveaxis(pixels, axis, 0)  # (n_in, other, C)
    out = np.empty((len(taps), *moved.shape[1:]), np.uint8)
    for row, (start, weights) in enumerate(taps):
        total = np.tensordot(weights, moved[start : start + len(weights)].astype(np.int64), 1)
        out[row] = np.clip((total + (1 << (_PRECISION - 1))) >> _PRECISION, 0, 255)
    return np.moveaxis(out, 0, axis)


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _hamming(x: float) -> float:
    if x == 0.0:
        return 1.0
    if abs(x) >= 1.0:
        return 0.0
    x = abs(x) * math.pi
    return math.sin(x) / x * (0.54 + 0.46 * math.cos(x))


def _cubic(x: float) -> float:
    a = -0.5
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0


def _sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


_KERNELS: Mapping[int, tuple[float, Callable[[float], float]]] = {
    Resampling.BOX: (0.5, _box),
    Resampling.BILINEAR: (1.0, _triangle),
    Resampling.HAMMING: (1.0, _hamming),
    Resampling.BICUBIC: (2.0, _cubic),
    Resampling.LANCZOS: (3.0, _lanczos),
}
WINDOW_FILTERS = frozenset({Resampling.NEAREST, *_KERNELS})
"""What `resize_window` knows: Pillow's filters but for the newest, MKS2013 and MKS2021."""
