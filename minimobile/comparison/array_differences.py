"""Two sets of weights side by side: which arrays differ, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minimobile.comparison.disturbed_runs import root_mean_square
from minimobile.comparison.suspect import Array
from minimobile.comparison.weight_hypotheses import LAYOUTS, PRECISIONS
from minimobile.operations.estimate import UNIT_ROUNDOFF
from minimobile.operations.operation import Weights

FEW = 3  # so many values are worth naming


@dataclass(frozen=True)
class ArrayDifference:
    """An array of which the other side's values are not ours: in how many of its `size` values, and `how`."""

    name: str
    count: int
    size: int
    how: str

    def __str__(self) -> str:
        return f"{self.name}: {self.how}"


def compare_arrays(ours: Weights, theirs: Weights) -> tuple[ArrayDifference, ...]:
    """Return the arrays that differ by more than a rounding, of those that both sides have, in our order."""
    found = []
    for name, own in ours.items():
        other = theirs.get(name)
        if other is None or own.dtype.kind != "f":
            continue
        if own.shape != other.shape:
            how = f"its shape is {other.shape}, ours is {own.shape}"
            found.append(ArrayDifference(name, own.size, own.size, how))
            continue
        mine, yours = own.astype(np.float64), other.astype(np.float64)
        differs = ~_is_close(mine, yours)
        if differs.any():
            how = _describe(name, mine, yours, differs, ours)
            found.append(ArrayDifference(name, int(differs.sum()), own.size, how))
    return tuple(found)


def _describe(name: str, ours: Array, theirs: Array, differs: Array, everything: Weights) -> str:
    """Say in what way an array of float64 is not ours; the first description under which nothing is left."""
    for words, expected in _transformations(ours).items():
        if expected.shape == theirs.shape and _is_close(expected, theirs).all():
            return words
    count, size = int(differs.sum()), differs.size
    if count > FEW:
        twin = next((key for key, values in everything.items() if key != name and np.array_equal(values, theirs)), None)
        if twin is not None and size > 1:
            return f"its values are our {twin}"
    with np.errstate(all="ignore"):
        ratios = theirs[differs] / ours[differs]
    where = f"{count} of {size} values differ" if count < size else "all values differ"
    place = tuple(int(index) for index in np.argwhere(differs)[0])
    first = f"at {list(place)} it has {theirs[place]:.6g} for our {ours[place]:.6g}"
    if np.isfinite(ratios).all() and np.ptp(ratios) <= 16 * UNIT_ROUNDOFF * np.abs(ratios).max():
        return f"{where}: {first}, {ratios[0]:.6g} times ours{' like the others' if count > 1 else ''}"
    share = root_mean_square(theirs - ours) / (root_mean_square(ours) or 1)
    return f"{where}, by {share:.2g} of their rms: {first}"


def _transformations(ours: Array) -> Mapping[str, Array]:
    """Return what careless hands make of an array, by what to call it."""
    changed = {"all zero": np.zeros_like(ours), "all one": np.ones_like(ours)}
    changed |= {f"ours rounded to {kind}": rounding(ours) for kind, rounding in PRECISIONS.items()}
    if ours.ndim > 1:
        kernel = ours if ours.ndim == 4 else ours[:, :, None, None]
        for words, turn in LAYOUTS.items():
            if (turned := turn(kernel)).shape == kernel.shape:
                changed[f"kernels {words}"] = turned.reshape(ours.shape)
        changed["the input channels in reverse, as for BGR"] = ours[:, ::-1]
    changed["the outputs in reverse"] = ours[::-1]
    changed["each output one place later"] = np.roll(ours, 1, axis=0)
    changed["each output one place earlier"] = np.roll(ours, -1, axis=0)
    return changed


def _is_close(one: Array, other: Array) -> Array:
    """Whether values are the same but for a rounding or two."""
    with np.errstate(all="ignore"):
        difference = np.abs(one - other)
        close: Array = (difference <= 4 * UNIT_ROUNDOFF * np.abs(one)) | (np.isnan(one) & np.isnan(other))
    return close
