"""Resampling in NumPy: bilinear upsampling of logits, and Pillow's filters for a window of the resized picture.

The window is for pictures whose resized whole would be absurd (1x10000 at a shortest edge of 256: 650 megapixels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as _PILLOW_VERSION
from PIL.Image import Resampling

_BAND_VALUES = 1 << 19  # float64 values of one band of upsampled rows: 4 MiB, about a second-level cache
_PRECISION = 22  # fractional bits of Pillow's weights for 8-bit pictures
_PILLOW_CHOOSES_ORDER = int(_PILLOW_VERSION.split(".")[0]) >= 13  # before, the horizontal pass always came first


def interpolate_bilinear(x: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False) -> NDArray[Any]:
    """Resize channels bilinearly, without antialiasing.

    Output i reads the input at `(i + 0.5) * n_in / n_out - 0.5`; positions before the first sample read the first,
    those behind the last the last. With `align_corners` it reads at `i * (n_in - 1) / (n_out - 1)`. Weights and sums
    are float64, rounded once to the type of `x`. The definition is that of
    `torch.nn.functional.interpolate(mode="bilinear")`.

    Shapes: x (C, h, w), size (H, W), result (C, H, W).

    >>> interpolate_bilinear(np.array([[[0.0, 4.0]]]), (1, 4))
    array([[[0., 1., 3., 4.]]])
    """
    out = np.empty((x.shape[0], *size), x.dtype)
    for start, stop in _bands(x.shape[0], size):
        out[:, start:stop] = _interpolate_rows(x, size, start, stop, align_corners)
    return out


def argmax_bilinear(x: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False) -> NDArray[np.int64]:
    """Compute `interpolate_bilinear(...).argmax(0)` without ever holding all of the upsampled channels.

    Shapes: x (C, h, w), size (H, W), result (H, W) int64.
    """
    out = np.empty(size, np.int64)
    for start, stop in _bands(x.shape[0], size):
        out[start:stop] = _interpolate_rows(x, size, start, stop, align_corners).argmax(0)
    return out


def _bands(channels: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    rows = max(1, _BAND_VALUES // max(1, channels * size[1]))
    return [(start, min(start + rows, size[0])) for start in range(0, size[0], rows)]


def _interpolate_rows(
    x: NDArray[Any], size: tuple[int, int], start: int, stop: int, align_corners: bool
) -> NDArray[Any]:
    """Compute rows start..stop of the result, (C, stop - start, W)."""
    _, h, w = x.shape
    top, bottom, down = _taps(h, size[0], start, stop, align_corners)
    left, right, across = _taps(w, size[1], 0, size[1], align_corners)
    rows = x[:, top].astype(np.float64)  # (C, rows, w)
    rows += down[:, None] * (x[:, bottom] - rows)
    out = rows[:, :, left]  # (C, rows, W)
    out += across * (rows[:, :, right] - out)
    return out.astype(x.dtype, copy=False)


def _taps(
    n_in: int, n_out: int, start: int, stop: int, align_corners: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Give the two samples that each output lies between, and its distance from the first."""
    index = np.arange(start, stop)
    if align_corners:
        position = index * (n_in - 1) / max(1, n_out - 1)
    else:
        position = np.maximum((index + 0.5) * (n_in / n_out) - 0.5, 0)
    low = np.minimum(position.astype(np.intp), n_in - 1)
    return low, np.minimum(low + 1, n_in - 1), position - low


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
