"""What calibration keeps of a map: the sum of every channel, and how often each value came up."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels.reference_statistics import BINS


def count_values(x: Any, sums: Any, counts: Any, width: float) -> None:
    """Add every channel's values to `sums`, and count values in bins: bin b holds those of (b - BINS / 2) * width on.

    A channel's values are added one after the other in float64. `width` is a power of two and |x| at most
    width * BINS / 2; a value at the upper end is counted in the last bin. Defined by reference_statistics.count_values.

    Shapes: x (pixels, C), sums (C), counts (BINS).
    """
    inverse = 1.0 / width
    for pixel in range(x.shape[0]):
        for c in range(x.shape[1]):
            value = np.float64(x[pixel, c])
            sums[c] += value
            place = int(np.floor(value * inverse)) + BINS // 2  # added to first, what is just below zero would be lost
            counts[min(place, BINS - 1)] += 1
