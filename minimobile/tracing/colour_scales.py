"""Colours for numbers: one scale for values from zero up, one for values on both sides of zero.

Both are straight lines in OKLab, so that equal steps look equal, between hues that colour-blind eyes tell apart (blue
and yellow, blue and orange); the lightness alone tells the order, in print, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_FINITE = (255, 0, 255)  # for NaN and infinities: on neither scale

# Lightness, chroma, hue in degrees, in OKLab.
_DARK_BLUE, _YELLOW = (0.20, 0.09, 265.0), (0.95, 0.13, 102.0)
_BLUE, _WHITE, _ORANGE = (0.45, 0.15, 255.0), (0.97, 0.0, 0.0), (0.45, 0.15, 45.0)


def sequential_scale() -> NDArray[np.uint8]:
    """Return (255, 3) colours from dark blue over grey to light yellow."""
    return oklab_to_srgb(np.linspace(_to_oklab(*_DARK_BLUE), _to_oklab(*_YELLOW), 255))


def diverging_scale() -> NDArray[np.uint8]:
    """Return (255, 3) colours from blue (below zero) over near-white, at 127, to orange (above)."""
    low, middle, high = (_to_oklab(*colour) for colour in (_BLUE, _WHITE, _ORANGE))
    return oklab_to_srgb(np.concatenate([np.linspace(low, middle, 128), np.linspace(middle, high, 128)[1:]]))


def colour_values(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return the colours (..., 3) of values that lie between `low` and `high`.

    With `low` below zero the scale is the diverging one, zero in its middle and as far to one side as to the other;
    else the sequential one, from `low` to `high`.
    """
    wide = values.astype(np.float64)
    is_finite = np.isfinite(wide)
    wide[~is_finite] = low
    scale, start, end = sequential_scale(), low, high
    if low < 0:
        end = max(-low, high)
        scale, start = diverging_scale(), -end
    width = end - start if end > start else 1.0
    colours: NDArray[np.uint8] = scale[np.rint((wide - start) / width * 254).astype(np.intp)]
    colours[~is_finite] = NOT_FINITE
    return colours


def oklab_to_srgb(colours: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Convert OKLab (..., 3) to 8-bit sRGB (..., 3); colours out of its reach are cut off.

    Sources: B. Ottosson, "A perceptual color space for image processing" (2020); IEC 61966-2-1 for sRGB's curve.

    >>> oklab_to_srgb(np.array([[1.0, 0.0, 0.0], [0.62796, 0.22486, 0.12585]])).tolist()  # white and red
    [[255, 255, 255], [255, 0, 0]]
    """
    cone_roots = colours @ _LAB_TO_CONES.T
    linear = np.clip(cone_roots**3 @ _CONES_TO_RGB.T, 0.0, 1.0)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    painted: NDArray[np.uint8] = np.rint(255 * curved).astype(np.uint8)
    return painted


def _to_oklab(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    angle = math.radians(hue)
    return np.array([lightness, chroma * math.cos(angle), chroma * math.sin(angle)])


_LAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
