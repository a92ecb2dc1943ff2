"""What a written-out value consists of: terms, the stages after them, and the same value before folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.operations.operation import MapShape
from minimobile.operations.written_out import Position, Scalar, Stage, Term


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


@dataclass(frozen=True, repr=False)
class Explanation:
    """How the value at `position` (row, column, channel) of `layer` comes about.

    `source` is the layer that the terms read, `source_shape` and `shape` (channels, height, width) of it and of the
    layer. `block` tells how many terms make one chain of the sum. `value` is what terms and stages give, `computed`
    what the engine has there.
    """

    layer: str
    operation: str
    position: Position
    shape: MapShape
    source: str
    source_shape: MapShape
    terms: tuple[Term, ...]
    block: int
    stages: tuple[Stage, ...]
    unfolded: Unfolded | None
    value: Scalar
    computed: Scalar

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.position))
        return f"Explanation({self.layer} at ({where}): {self.value}, of {len(self.terms)} terms)"

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


def count_ulps(x: ArrayLike, y: ArrayLike) -> NDArray[np.uint64]:
    """Return how many floats of their type lie from x to y, element by element.

    Zero and minus zero are the same float, and so are all NaNs. Shapes: x and y alike, of one float type.

    >>> count_ulps(np.float32([1, 0, np.nan]), np.float32([1 + 2**-23, -(2.0**-149), np.nan])).tolist()
    [1, 1, 0]
    """
    first, second = np.asarray(x), np.asarray(y)
    sign = np.uint64(1 << (8 * first.itemsize - 1))
    places = [values.view(f"u{values.itemsize}").astype(np.uint64) for values in (first, second)]
    sizes = [place & (sign - np.uint64(1)) for place in places]
    is_one_side = (places[0] & sign) == (places[1] & sign)
    apart = np.where(is_one_side, np.maximum(*sizes) - np.minimum(*sizes), sizes[0] + sizes[1])
    distance: NDArray[np.uint64] = np.where(np.isnan(first) & np.isnan(second), np.uint64(0), apart)
    return distance


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
