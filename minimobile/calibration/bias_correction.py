"""Bias correction: what rounded weights add to a layer's mean is taken off its bias again."""

from __future__ import annotations

import numpy as np

from minimobile.calibration.folding import Doubles
from minimobile.calibration.sums import sum_in_order


def mean_shift(weight: Doubles, rounded: Doubles, input_means: Doubles) -> Doubles:
    """Return by how much rounding a weight moves the mean of each output channel: sum of (rounded - weight) * E[x].

    The error of a weight has no mean over all weights, but one channel has few of them (a depthwise filter nine), and
    after relu all its inputs have one sign. E[x] comes from pictures, or from batch norm's statistics. Pixels next to
    the padding have a smaller mean, which is left aside: each tap counted by the share of places where it lies inside
    the map was tried, and lost (V1 0.25: 22.7 dB in place of 22.8; the digit reader: 32.1 in place of 32.9).
    Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.2.

    Shapes: weight, rounded (C_out, C_in, ...), (C, 1, ...) of a filter per channel; input_means (C_in) -> (C_out).

    >>> mean_shift(np.array([[0.5, 0.25]]), np.array([[0.6, 0.25]]), np.array([2.0, 1.0])).round(6)
    array([0.2])
    """
    error = (rounded - weight).reshape(*weight.shape[:2], -1)
    per_input = sum_in_order(error)  # (C_out, C_in), or (C, 1)
    if weight.shape[1] == 1 and len(weight) == len(input_means):
        return per_input[:, 0] * input_means
    return sum_in_order(per_input * np.asarray(input_means)[None])
