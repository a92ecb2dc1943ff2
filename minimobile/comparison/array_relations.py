"""How an array of another file comes from ours: the simplest of what converters, and careless hands, make of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.integer_grids import STEPS, find_grid
from minimobile.comparison.weight_hypotheses import LAYOUTS, PRECISIONS
from minimobile.operations.estimate import UNIT_ROUNDOFF

Array = NDArray[Any]

EQUAL, ROUNDED, CONSTANT, TRANSPOSED, PERMUTED = "equal", "rounded", "constant", "transposed", "permuted"
SCALED, SCALED_BY_CHANNEL, QUANTISED = "scaled", "scaled by channel", "quantised"
ROUNDINGS = 4  # so many float32 roundings may lie between two values that are called the same
SURE = 3  # values of a channel that a factor, or a grid, of its own must explain
_INVARIANT = 1e-5  # relative: what sums over all values, in whatever order they stand, may differ by


class Relation(NamedTuple):
    """What theirs is to ours, `kind` being one word for it; `left` is the largest difference that remains.

    `left` is relative to their value, of a grid in its steps.
    """

    kind: str
    words: str
    left: float = 0.0


def relate(ours: Array, theirs: Array) -> Relation | None:
    """Return the first relation that holds within four roundings of float32 of every value; None for unrelated arrays.

    In this order: the same values; constants; rounded to 16 bits; elsewhere (transposed, flipped, channels permuted);
    scaled by one factor; all of these together; scaled by a factor per channel; rounded to grids of 255 steps.
    Shapes: a kernel (C_out, C_in / groups, K_h, K_w), a matrix (C_out, C_in), (C), or a scalar.
    """
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    if ours.shape == theirs.shape:
        if np.array_equal(ours, theirs, equal_nan=True):
            return Relation(EQUAL, "equal")
        if is_close(ours, theirs).all():
            return Relation(ROUNDED, "equal but for float32's rounding", _left(ours, theirs))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()) or ours.size != theirs.size or not ours.size:
        return None
    if (theirs == theirs.flat[0]).all() and not (ours == ours.flat[0]).all():
        return Relation(CONSTANT, f"all {theirs.flat[0]:.6g}")
    for kind, words, values in _rewritten(ours, theirs):
        if not _may_be_permuted(values, theirs):
            continue
        for place, where, moved in _moved(values, theirs):
            if is_close(moved, theirs).all():
                return Relation(place or kind, ", ".join(filter(None, (words, where))), _left(moved, theirs))
    return None if ours.shape != theirs.shape else _scale_channels(ours, theirs) or _quantise(ours, theirs)


def _rewritten(ours: Array, theirs: Array) -> Iterator[tuple[str, str, Array]]:
    """Yield what keeps every value in its place: kind, words and values."""
    yield "", "", ours
    for kind, rounding in PRECISIONS.items():
        yield f"{ROUNDED} to {kind}", f"ours rounded to {kind}", rounding(ours)
    norm = float(np.linalg.norm(ours))
    if norm and ours.size > 1:
        factor = float(np.linalg.norm(theirs)) / norm
        for signed in (factor, -factor):
            yield SCALED, f"{signed:.6g} times ours", signed * ours


def _may_be_permuted(values: Array, theirs: Array) -> bool:
    """Whether sums in which the place of a value does not count are the same."""
    return all(
        abs(mine - yours) <= _INVARIANT * size
        for mine, yours, size in (
            (np.sum(values), np.sum(theirs), np.sum(np.abs(theirs))),
            (np.sum(values**2), np.sum(theirs**2), np.sum(theirs**2)),
        )
    )


def _moved(values: Array, theirs: Array) -> Iterator[tuple[str, str, Array]]:
    """Yield values in other places: kind, words and values. The first have not been moved at all."""
    if values.shape == theirs.shape:
        yield "", "", values
    yield from ((kind, words, moved) for kind, words, moved in _places(values) if moved.shape == theirs.shape)
    if values.shape == theirs.shape:
        for axis, channels in enumerate(("output", "input")[: values.ndim]):
            order = _match(values, theirs, axis)
            yield PERMUTED, f"the {channels} channels permuted{_tell(order)}", np.take(values, order, axis)
    else:
        yield TRANSPOSED, f"reshaped to {theirs.shape}", values.reshape(theirs.shape)


def _places(values: Array) -> Iterator[tuple[str, str, Array]]:
    if values.ndim in (2, 4):
        kernel = values if values.ndim == 4 else values[:, :, None, None]
        for words, turn in LAYOUTS.items():
            if (turned := turn(kernel)).shape == kernel.shape:
                yield TRANSPOSED, f"kernels {words}", turned.reshape(values.shape)
        for axes in permutations(range(values.ndim)):
            yield TRANSPOSED, f"transposed, axes {axes} of ours", values.transpose(axes)
        yield PERMUTED, "the input channels in reverse, as for BGR", values[:, ::-1]
    if values.ndim:
        yield PERMUTED, "the output channels in reverse", values[::-1]
        yield PERMUTED, "each output channel one place later", np.roll(values, 1, axis=0)
        yield PERMUTED, "each output channel one place earlier", np.roll(values, -1, axis=0)


def _match(values: Array, theirs: Array, axis: int) -> NDArray[np.intp]:
    """Return the channel of ours that each of theirs may be: those of equal rank by a random projection."""
    rows, others = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (values, theirs))
    direction = np.random.default_rng(0).normal(size=rows.shape[1])
    order = np.empty(len(rows), np.intp)
    order[np.argsort(others @ direction, kind="stable")] = np.argsort(rows @ direction, kind="stable")
    return order


def _tell(order: NDArray[np.intp]) -> str:
    """Name the channels where there are few, else the first that has moved."""
    if len(order) <= 4:
        return f": {', '.join(map(str, order))} of ours"
    first = int(np.argmax(order != np.arange(len(order))))
    return f": {int(np.sum(order != np.arange(len(order))))} of {len(order)}, their {first} is our {order[first]}"


def _scale_channels(ours: Array, theirs: Array) -> Relation | None:
    """Relate arrays by a factor for each output, or each input channel."""
    for axis, channels in enumerate(("output", "input")[: ours.ndim]):
        rows, others = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (ours, theirs))
        used = np.any(rows != 0, axis=1)
        if len(rows) < 2 or not used.any() or np.median(np.count_nonzero(rows[used], axis=1)) < SURE:
            continue
        factors = np.ones(len(rows))
        factors[used] = np.sum(rows[used] * others[used], axis=1) / np.sum(rows[used] ** 2, axis=1)
        scaled = rows * factors[:, None]
        if is_close(scaled, others).all():
            low, high = factors[used].min(), factors[used].max()
            words = f"scaled per {channels} channel, by {low:.4g} to {high:.4g}"
            return Relation(SCALED_BY_CHANNEL, words, _left(scaled, others))
    return None


def _quantise(ours: Array, theirs: Array) -> Relation | None:
    """Relate arrays where theirs are ours on one grid, or on one for each output channel: no more than a step off."""
    for words, rows, others, steps in _grids(ours, theirs):
        off = float((np.abs(others - rows) / steps[:, None]).max())
        if off <= 1:
            return Relation(QUANTISED, f"quantised {words}, off by at most {off:.2f}", off)
    return None


def describe_grid(ours: Array, theirs: Array) -> str:
    """Say of unrelated arrays that theirs lie on grids, if they do, and how far from ours; "" where they do not."""
    for words, rows, others, steps in _grids(ours, theirs):
        off = (np.abs(others - rows) / steps[:, None]).max()
        return f"; theirs are quantised {words}, up to {off:.3g} of them from ours"
    return ""


def _grids(ours: Array, theirs: Array) -> Iterator[tuple[str, Array, Array, Array]]:
    """Yield the grids that theirs lie on: words, rows of both sides, and the step of each row."""
    for part, count in (("tensor", 1), ("channel", len(ours) if ours.ndim > 1 else 0)):
        if not count or ours.size < SURE * count or (part == "channel" and count == 1):
            continue
        rows, others = ours.reshape(count, -1), theirs.reshape(count, -1)
        steps = find_grid(others)
        if steps is None or not steps.any() or rows[steps == 0].any():
            continue
        used = steps > 0
        low, high = steps[used].min(), steps[used].max()
        sizes = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        yield f"per {part}: at most {STEPS} steps of {sizes}", rows[used], others[used], steps[used]


def is_close(one: Array, other: Array) -> Array:
    """Return where values are the same but for `ROUNDINGS` roundings of float32, or both NaN."""
    with np.errstate(all="ignore"):
        limit = ROUNDINGS * UNIT_ROUNDOFF * np.maximum(np.abs(one), np.abs(other))
        close: Array = (np.abs(one - other) <= limit) | (np.isnan(one) & np.isnan(other)) | (one == other)
    return close


def _left(one: Array, other: Array) -> float:
    """Return the largest difference relative to the other's value."""
    size = np.abs(other)
    return float(np.max(np.abs(one - other) / np.where(size > 0, size, 1), initial=0))
