"""What a written-out value consists of: terms, the stages after them, and the same value before folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.arguments import read_flag
from minimobile.operations.operation import MapShape
from minimobile.operations.written_out import Position, Scalar, Stage, Term
from minimobile.tables import Table

SHORT_BLOCK, EDGE = 12, 3  # longer blocks are shown by this many of their first and last terms


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

    def tables(self, every_term: bool = False) -> tuple[Table, ...]:
        """Return the terms, the stages and the value before folding; of long blocks the ends, or `every_term`."""
        row, column, channel = self.position
        count = len(self.terms)
        blocks = f", in blocks of {self.block}" if count > self.block else ""
        title = (
            f"{self.layer} ({_sizes(self.shape)}) at row {row}, column {column}, channel {channel}\n"
            f"{self.operation} of {self.source} ({_sizes(self.source_shape)}): {count} term{'s' * (count > 1)}{blocks}"
        )
        products = ("weight#", "product#") if self.terms[0].weight is not None else ()
        columns = ("ky,kx,c#", "y,x#", "pixel#", *products, "sum so far#", "bits#")
        stages = [
            (stage.name, "" if stage.operand is None else stage.operand, stage.value, bits(stage.value))
            for stage in self.stages
        ]
        return (
            Table(columns, _describe_terms(self.terms, self.block, every_term), title),
            Table(("then", "number#", "value#", "bits#"), stages),
            *([] if self.unfolded is None else [_tabulate_unfolded(self.unfolded)]),
        )

    @property
    def verdict(self) -> str:
        """The value that was written out beside the engine's, with their bits."""
        value, computed = self.value, self.computed
        return f"written out: {value!s} ({bits(value)}); the engine: {computed!s} ({bits(computed)})"

    def _repr_html_(self) -> str:
        """Return the tables of the command `trace --at`, for notebooks."""
        return "".join(table.to_html() for table in self.tables()) + Table((), (), notes=(self.verdict,)).to_html()

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


def _describe_terms(terms: Sequence[Term], size: int, every_term: bool) -> list[tuple[object, ...]]:
    has_weights = terms[0].weight is not None
    is_whole = read_flag(every_term, "every_term")
    rows: list[tuple[object, ...]] = []
    for first in range(0, len(terms), size):
        block = terms[first : first + size]
        left_out = 0 if is_whole or len(block) <= SHORT_BLOCK else len(block) - 2 * EDGE
        rows += [_describe_term(term, has_weights) for term in block[: EDGE if left_out else None]]
        if left_out:
            rows.append(("...", "", f"{left_out} more", *[""] * (4 if has_weights else 2)))
            rows += [_describe_term(term, has_weights) for term in block[-EDGE:]]
    return rows


def _describe_term(term: Term, has_weights: bool) -> tuple[object, ...]:
    (ky, kx), (y, x, channel) = term.tap, term.position
    numbers: list[str] = ["outside" if term.pixel is None else f"{term.pixel:.5g}"]
    if has_weights:
        numbers += ["" if number is None else f"{number:.5g}" for number in (term.weight, term.product)]
    return f"{ky},{kx},{channel}", f"{y},{x}", *numbers, term.running, bits(term.running)


def _tabulate_unfolded(unfolded: Unfolded) -> Table:
    def show(name: str, value: Scalar) -> tuple[object, ...]:
        return name, value, bits(value)

    rows = [
        show("x: the convolution with the weights of the file", unfolded.convolved),
        show("mean", unfolded.mean),
        show("scale", unfolded.scale),
        show("variance", unfolded.variance),
        ("epsilon", unfolded.epsilon, ""),
        show("shift", unfolded.shift),
        show("(x - mean) * scale / sqrt(variance + epsilon) + shift", unfolded.normalized),
        show(f"folded, as above: {unfolded.ulps} ulp away", unfolded.folded),
    ]
    return Table(("before folding", "value#", "bits#"), rows)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
