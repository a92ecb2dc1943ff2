"""Which numbers the bytes of a weight stand for: per output channel and symmetric, or one range for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.calibration.ranges import STEPS, include_zero
from minimobile.calibration.sums import sum_in_order

Doubles = NDArray[np.float64]
_SHARES = np.arange(40, 101)[::-1] / 100  # of the largest weight
_LARGEST = 127


class WeightGrid(NamedTuple):
    """Bytes, and what they stand for: scales * (stored - zero), a scale per index of the first axis, or one.

    Shapes: stored (C_out, ...), scales (C_out) or (1), float32.
    """

    stored: NDArray[np.int8 | np.uint8]
    scales: NDArray[np.float32]
    zero: int

    def numbers(self) -> Doubles:
        """Return what the bytes stand for (C_out, ...)."""
        scales = self.scales.astype(np.float64).reshape(-1, *[1] * (self.stored.ndim - 1))
        numbers: Doubles = scales * (self.stored.astype(np.int64) - self.zero)
        return numbers


def min_max(weight: Doubles) -> Doubles:
    """Return the largest absolute weight of each row. Shapes: weight (C, K) -> (C)."""
    largest: Doubles = np.abs(weight).max(1)
    return largest


def squared_error(weight: Doubles) -> Doubles:
    """Return, for each row, the limit whose 255 numbers lose least, among 61 shares of the largest weight.

    Shapes: weight (C, K) -> (C).
    """
    largest = min_max(weight)
    best, limits = np.full(len(weight), np.inf), largest
    for share in _SHARES:
        step = np.maximum(largest * share / _LARGEST, np.finfo(np.float64).tiny)[:, None]
        rounded = np.clip(np.rint(weight / step), -_LARGEST, _LARGEST) * step
        loss = sum_in_order((weight - rounded) ** 2)
        limits = np.where(loss < best, largest * share, limits)
        best = np.minimum(loss, best)
    return limits


LIMITS: Mapping[str, Callable[[Doubles], Doubles]] = {"min_max": min_max, "squared_error": squared_error}


def nearest(steps: Doubles) -> Doubles:
    """Return whole numbers: each the nearest, halves to even. Shape: steps (R, K), and the result."""
    return np.rint(steps)


def balanced(steps: Doubles) -> Doubles:
    """Return whole numbers of which each row has nearly the sum of its steps.

    Neighbouring pixels are much the same, so that what a filter's taps have too much together goes wrong together:
    after rounding to the nearest, as many of a row's numbers as their errors add up to are rounded the other way,
    those that were furthest off first. Source: Guo et al. 2022, "SQuant" (arXiv 2202.07471), section 3.3, kernel-wise.

    Shapes: steps (R, K), and the result.

    >>> balanced(np.array([[0.4, 0.4, 0.3]]))
    array([[1., 0., 0.]])
    """
    rounded = np.rint(steps)
    errors = rounded - steps
    totals = sum_in_order(errors)[:, None]
    order = np.argsort(-errors * np.sign(totals), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return np.where(rank < np.rint(np.abs(totals)), rounded - np.sign(totals), rounded)


ROUNDINGS: Mapping[str, Callable[[Doubles], Doubles]] = {"nearest": nearest, "balanced": balanced}


def round_per_channel(weight: Doubles, limits: Doubles, rounding: str) -> WeightGrid:
    """Return int8 weights from -127 to 127 with zero point 0 and the scale limit / 127 of each output channel.

    `rounding` is a name of `ROUNDINGS`; the rows are the filters of K_h x K_w taps, single taps go to the nearest.
    Source: LiteRT's quantisation specification.

    Shapes: weight (C_out, ...), limits (C_out), above zero.
    """
    scales = np.maximum((limits / _LARGEST).astype(np.float32), np.finfo(np.float32).tiny)
    steps = weight / scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    return WeightGrid(np.clip(_round(steps, rounding), -_LARGEST, _LARGEST).astype(np.int8), scales, 0)


def round_per_tensor(weight: Doubles, rounding: str) -> WeightGrid:
    """Return uint8 weights from the least to the largest, with one scale and a zero point. Shape: weight (C_out, ...).

    `rounding` as in `round_per_channel`. Source: Jacob et al. 2018, section 3; the byte 0 is not used, as in training.
    """
    low, high = include_zero((float(weight.min()), float(weight.max())))
    scale = np.float32((high - low) / (STEPS - 1))
    zero = int(np.clip(np.floor(1 - low / float(scale) + 0.5), 1, STEPS))
    stored = np.clip(_round(weight / float(scale), rounding) + zero, 1, STEPS).astype(np.uint8)
    return WeightGrid(stored, np.array([scale], np.float32), zero)


def _round(steps: Doubles, rounding: str) -> Doubles:
    """Return whole numbers (C_out, ...); the rows that a rounding sees are filters of several taps."""
    taps = int(np.prod(steps.shape[2:]))
    return ROUNDINGS[rounding](steps.reshape(-1, taps)).reshape(steps.shape) if taps > 1 else np.rint(steps)
