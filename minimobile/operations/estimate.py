"""What float32 can make of a value: the value in float64, how far off at most and on average, and the constants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UNIT_ROUNDOFF = 2.0**-24  # of float32, to nearest
SMALLEST_NORMAL = 2.0**-126  # a runtime may take products below it for zero
# Half of that of variance + epsilon, an inverse root (5, estimated as in training for quantisation), scale, folded
# weight or mean times scale, two sums.
NORMALIZATION_ROUNDINGS = 10
GRID_ROUNDINGS = 4  # of a number's distance from the end of a range, and of its count of steps
ONE_ROUNDING = UNIT_ROUNDOFF / math.sqrt(3)  # the deviation of an error that is uniform in +-u
MOST_DEVIATIONS = 32  # that a single value may be off; see `comparison.float32_bounds`


@dataclass(frozen=True)
class Estimate:
    """What a node gives. Shapes: all (N, H, W, C), float64.

    `value` is its definition, `error` how far float32 can be from that, `magnitude` what the same sums would give if
    nothing in them cancelled, `deviation` the standard deviation of the error, roundings being random.
    """

    value: Array
    error: Array
    magnitude: Array
    deviation: Array

    @property
    def limit(self) -> Array:
        """How far a single value may be off: at most, or so many deviations that it is never seen."""
        with np.errstate(all="ignore"):
            limit: Array = np.fmin(self.error, MOST_DEVIATIONS * self.deviation)
        return limit

    @property
    def reach(self) -> Array:
        """The largest that the value may be in float32, without its sign."""
        reach: Array = abs(self.value) + self.error
        return reach


class Noise(NamedTuple):
    """Standard deviations of the errors that float32 makes in one node. Shapes: (N, H, W, C).

    `independent` is of those that every value has for itself, `shared` of those that come with rounded weights and
    are the same error wherever these are used.
    """

    independent: Array
    shared: Array


def noise_of_sum(terms: int, squares: Array, total: Array) -> Array:
    """Return the deviation of a sum of products in float32, given the sum of their squares and their sum.

    A sum of n terms p in a chain is rounded n times, each time by u times what is summed up so far. Of terms in random
    order, k of n come to k/n of the sum S, give or take the root of k mean squares; and each product is rounded:

        deviation**2 = u**2 / 3 * (n (sum p**2 / 2 + S**2 / 3) + 2 sum p**2)

    Source: Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis (SIAM J. Sci. Comput. 41, 2019).
    """
    deviation: Array = ONE_ROUNDING * np.sqrt(terms * (squares / 2 + total**2 / 3) + 2 * squares)
    return deviation


def gamma(count: int) -> float:
    """Return by which part `count` roundings in a row can change a value (Higham, 2nd edition, lemma 3.1)."""
    return count * UNIT_ROUNDOFF / (1 - count * UNIT_ROUNDOFF)
