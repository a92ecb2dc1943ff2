"""What a written-out value consists of: terms, the stages after them, and the same value before folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minimobile.shapes import MapShape

Scalar = np.floating[Any]
Position = tuple[int, int, int]  # row, column, channel


class Term(NamedTuple):
    """One term. `tap` is (ky, kx), `position` that of the pixel it reads.

    `pixel` is None where that lies outside the map: such a term is skipped. `weight` and `product` (exact for float32:
    in float64) are None in a mean. `running` is the sum so far, of this block of terms.
    """

    tap: tuple[int, int]
    position: Position
    pixel: Scalar | None
    weight: Scalar | None
    product: Scalar | None
    running: Scalar


class Stage(NamedTuple):
    """One step after the terms: what is done, with which number (None: with none), and the value after it."""

    name: str
    operand: Scalar | None
    value: Scalar


@dataclass(frozen=True)
class Unfolded:
    """The same value as it was trained: a convolution with the weights of the file, then batch norm.

    `normalized` = (convolved - mean) * scale / sqrt(variance + epsilon) + shift, in float64, rounded once. `folded` is
    what the terms with folded weights and bias give at this point, and `ulps` the distance in units of the last place.
    """

    terms: tuple[Term, ...]
    stages: tuple[Stage, ...]
    convolved: Scalar
    mean: Scalar
    scale: Scalar
    variance: Scalar
    epsilon: float
    shift: Scalar
    normalized: Scalar
    folded: Scalar
    ulps: int


@dataclass(frozen=True)
class Explanation:
    """How the value at `position` (row, column, channel) of `layer` comes about.

    `source` is the layer that the terms read, `source_shape` and `shape` (channels, height, width) of it and of the
    layer. `value` is what terms and stages give, `computed` what the engine has there.
    """

    layer: str
    operation: str
    position: Position
    shape: MapShape
    source: str
    source_shape: MapShape
    terms: tuple[Term, ...]
    stages: tuple[Stage, ...]
    unfolded: Unfolded | None
    value: Scalar
    computed: Scalar

    @property
    def agrees(self) -> bool:
        """Whether the written-out value and the engine's are the same bits (or both NaN)."""
        return bits(self.value) == bits(self.computed) or bool(np.isnan(self.value) and np.isnan(self.computed))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that a sum passes through comes with its bits in hexadecimal."""
        plain: dict[str, Any] = _plain(self)
        return {**plain, "agrees": self.agrees}


def bits(value: Scalar) -> str:
    """Return the bits of a float as hexadecimal digits, eight for float32.

    >>> bits(np.float32(1.5))
    '3fc00000'
    """
    return f"{int.from_bytes(value.tobytes(), 'little'):0{2 * value.nbytes}x}"


def count_ulps(first: Scalar, second: Scalar) -> int:
    """Return how many floats lie between two; 0 for two NaNs."""
    places = []
    for value in (first, second):
        place = int.from_bytes(value.tobytes(), "little", signed=True)
        places.append(place if place >= 0 else -(place & (1 << (8 * value.nbytes - 1)) - 1))
    return 0 if np.isnan(first) and np.isnan(second) else abs(places[0] - places[1])


def _plain(value: Any) -> Any:
    if isinstance(value, np.floating):
        return {"number": float(value), "bits": bits(value)}
    if isinstance(value, Term | Stage):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Explanation | Unfolded):
        return {name: _plain(part) for name, part in vars(value).items()}
    return value
