"""What float32 can make of a value: the value in float64, a bound on the error, and the constants of the bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

UNIT_ROUNDOFF = 2.0**-24  # of float32, to nearest
SMALLEST_NORMAL = 2.0**-126  # a runtime may take products below it for zero
# Half of that of variance + epsilon, an inverse root (5, estimated as in training for quantisation), scale, folded
# weight or mean times scale, two sums.
NORMALIZATION_ROUNDINGS = 10


@dataclass(frozen=True)
class Estimate:
    """What a node gives. Shapes: all (N, H, W, C), float64.

    `value` is its definition, `error` how far float32 can be from that, `magnitude` what the same sums would give if
    nothing in them cancelled.
    """

    value: Array
    error: Array
    magnitude: Array

    @property
    def reach(self) -> Array:
        """The largest that the value may be in float32, without its sign."""
        reach: Array = abs(self.value) + self.error
        return reach


def gamma(count: int) -> float:
    """Return by which part `count` roundings in a row can change a value (Higham, 2nd edition, lemma 3.1)."""
    return count * UNIT_ROUNDOFF / (1 - count * UNIT_ROUNDOFF)
