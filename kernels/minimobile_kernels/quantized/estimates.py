"""The factors of estimates in float32, rows of `constants.SCALES`: those of sums, and those of two maps that are added.

`estimate.py` and `sum_estimate.py` say why the bytes are then the definition's, and when they are not certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels.quantized.constants import FRACTION_BITS
from minimobile_kernels.quantized.reference import ADDED_BITS, BY_FLOATS, Scaling

WINDOW = 4  # units above a whole step in which an estimate is not certain: one of 16,384
LARGEST_SHIFT = 14
LARGEST_STEPS = 2.0**15 - 2**9  # of a sum, so that its units fit int32
MARGIN = 8.0  # units that an estimate may be off to either side
HALF_DIGIT = 2.0**-24  # of a float32: what rounding moves it by, at most, as a part of itself


def estimates(by: Scaling, zero: int, largest: NDArray[np.float64], bytes_of: str) -> NDArray[np.float32]:
    """Return the rows "factor", "above" and "below" of `SCALES`, (3, C), for an output's zero point.

    `reference.requantize` rounds sum * multiplier / 2**31, halves up, and the result over 2**right, halves away from
    zero: in one, floor(steps + 1/2 + 2**-(right + 1)) for sums from zero on, and floor(steps + 1/2 - 2**-(right + 1))
    below; or, rounded once, floor(steps + 1/2). Channels for which the proof does not hold get zeros, which are never
    certain; `largest` (C) says how large their sums may be, of either sign.
    """
    real = np.ldexp(by.multiplier.astype(np.float64), by.shift - 31)
    moved = np.ldexp(float(bytes_of == "litert"), by.shift - 1)
    units = np.ldexp(np.stack([real, zero + 0.5 + moved, zero + 0.5 - moved]), FRACTION_BITS)
    units[1:] += WINDOW // 2
    has_proof = (by.shift < 0) & (by.shift >= -LARGEST_SHIFT) & (by.multiplier >= 1 << 30)
    has_proof &= (largest * real < LARGEST_STEPS) & (bytes_of not in BY_FLOATS)
    return np.where(has_proof, units, 0).astype(np.float32)


def addition_estimates(
    scales: tuple[float, float, float], zeros: tuple[int, int, int], bytes_of: str
) -> NDArray[np.float32]:
    """Return what bytes x and y are multiplied with, and what is added: units of the output, or zeros, never certain.

    `scales` and `zeros` are those of x, y and their sum. A byte at the common scale, below 2**28, is off by 1 from two
    roundings and by 2**-4 from its multiplier; so is their sum, by its multiplier, and by the first of its roundings.
    """
    s_x, s_y, s_out = scales
    steps = np.array([s_x / s_out, s_y / s_out, 0.0])
    steps[2] = zeros[2] + 0.5 - zeros[0] * steps[0] - zeros[1] * steps[1]
    units: NDArray[np.float64] = np.ldexp(steps, FRACTION_BITS)
    unit_of_sum = np.ldexp(2 * max(s_x, s_y) / s_out, FRACTION_BITS - ADDED_BITS)
    inner = abs(units[2]) + MARGIN + 255 * units[1]  # no less than any value before the last addition
    floats = HALF_DIGIT * (255 * (units[0] + units[1]) + abs(units[2]) + MARGIN + inner) + 0.5
    wrong = floats + 3.5 * unit_of_sum + 2.0**-6
    if bytes_of in BY_FLOATS or wrong > MARGIN or inner + 255 * units[0] > 2.0**30:
        return np.zeros(3, np.float32)
    units[2] += MARGIN
    return units.astype(np.float32)
