"""Two sets of weights side by side: how each array of theirs comes from ours, alone or with batch norm folded in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.array_relations import EQUAL, QUANTISED, SCALED, Relation, describe_grid, is_close, relate
from minimobile.comparison.disturbed_runs import root_mean_square
from minimobile.networks.graph import Graph, Node
from minimobile.operations.estimate import UNIT_ROUNDOFF
from minimobile.operations.folding import fold_weights, normalization_factors
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_nodes
from minimobile.tables import Table

Array = NDArray[Any]

FEW = 3  # so many values are worth naming
SAME_FOLDED = 1e-5  # of each value: two batch norms that are one convolution, each rounded for itself
SAME_TERMS = 16 * UNIT_ROUNDOFF  # of what a folded bias is the sum of, which may cancel
FOLDED = "folded"
OURS_ALONE, THEIRS_ALONE, ANOTHER_SHAPE, ANOTHERS = "ours alone", "theirs alone", "another shape", "another's"
A_FEW, UNRELATED = "a few values", "unrelated"


@dataclass(frozen=True)
class ArrayComparison:
    """An array of ours and what the other side has under its name.

    `kind` is the simplest relation that holds: "equal", "rounded" (but for float32's roundings), "rounded to float16",
    "rounded to bfloat16", "constant", "transposed", "permuted", "scaled", "scaled by channel", "quantised"; else
    "folded" (the same with batch norm folded in), "another's", "a few values", "unrelated", "another shape",
    "ours alone" or "theirs alone". `how` says it with its figures. `count` of `size` values differ by more than
    rounding, by `largest` at most; `left` is what the relation leaves: of each value, of a grid in its steps.
    `is_same_folded`: with batch norm folded in, this array and its neighbours come to the same on both sides.
    """

    name: str
    kind: str
    how: str
    count: int
    size: int
    largest: float | None = None
    left: float | None = None
    is_same_folded: bool = False

    @property
    def differs(self) -> bool:
        """Whether there is more between the sides than float32's rounding."""
        return self.count > 0

    def __str__(self) -> str:
        return f"{self.name}: {self.how}"


def compare_arrays(
    ours: Weights, theirs: Weights, graph: Graph | None = None, their_graph: Graph | None = None
) -> tuple[ArrayComparison, ...]:
    """Return a comparison of every array of floats, in our order; those that only the other side has come last.

    With the graphs of both sides (theirs: None where it is ours), convolutions are compared with batch norm folded in,
    too, where array by array they are not the same.
    """
    names = [name for name, values in ours.items() if values.dtype.kind == "f"]
    found = {name: _compare(name, ours[name], theirs.get(name), ours) for name in names}
    extra = (name for name, values in theirs.items() if values.dtype.kind == "f" and name not in ours)
    for name in extra:
        found[name] = ArrayComparison(name, THEIRS_ALONE, "the other side alone has it", 0, theirs[name].size)
    folded: set[str] = set()
    if graph is not None:
        named = {node.name: node for node in fold_nodes((graph if their_graph is None else their_graph).nodes)}
        for node in fold_nodes(graph.nodes):
            if "scale" in node.weights and node.name in named:
                _compare_folded(found, node, named[node.name], ours, theirs)
                folded.update(node.weights.values())
    for name, array in found.items():
        if array.kind == UNRELATED and name not in folded:
            found[name] = dataclasses.replace(array, how=array.how + describe_grid(ours[name], theirs[name]))
    return tuple(found.values())


def tabulate(arrays: Sequence[ArrayComparison]) -> Table:
    """Return how many arrays there are of each kind, and what the first of them is like."""
    rows = []
    for kind in dict.fromkeys(array.kind for array in arrays):
        same_kind = [array for array in arrays if array.kind == kind]
        first = same_kind[0]
        rows.append((kind, len(same_kind), first.name if kind == EQUAL else str(first)))
    return Table(("theirs", "arrays#", "the first of them"), rows, "arrays of the other side, beside ours")


def list_differences(arrays: Sequence[ArrayComparison]) -> Table:
    """Return a row for each array that is not equal."""
    rows = [
        (array.name, array.kind, f"{array.count} of {array.size}", _figure(array.largest), array.how)
        for array in arrays
        if array.kind != EQUAL
    ]
    return Table(("array", "theirs", "values that differ#", "by at most#", "how"), rows)


def _figure(number: float | None) -> str:
    return "" if number is None else f"{number:.3g}"


def _compare(name: str, own: Array, other: Array | None, everything: Weights) -> ArrayComparison:
    if other is None:
        return ArrayComparison(name, OURS_ALONE, "the other side does not have it", 0, own.size)
    ours, theirs = own.astype(np.float64), other.astype(np.float64)
    relation = relate(ours, theirs)
    if ours.shape != theirs.shape:
        shapes = f"its shape is {other.shape}, ours is {own.shape}"
        how = shapes if relation is None else f"{relation.words}; {shapes}"
        kind, left = (ANOTHER_SHAPE, None) if relation is None else (relation.kind, relation.left)
        return ArrayComparison(name, kind, how, own.size, own.size, None, left)
    differs = ~is_close(ours, theirs)
    count, size = int(differs.sum()), own.size
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(ours - theirs), initial=0))
    if relation is not None:
        words = _with_bound(relation)
        if relation.kind == SCALED:
            words += f": {_first(ours, theirs, differs)}"
        return ArrayComparison(name, relation.kind, words, count, size, largest, relation.left)
    kind, how = _describe(name, ours, theirs, differs, everything)
    return ArrayComparison(name, kind, how, count, size, largest)


def _with_bound(relation: Relation) -> str:
    if relation.left == 0 or relation.kind == QUANTISED:
        return relation.words
    return f"{relation.words}, within {relation.left:.1g} of each value"


def _describe(name: str, ours: Array, theirs: Array, differs: Array, everything: Weights) -> tuple[str, str]:
    """Return kind and words for arrays of float64 that are not related."""
    count, size = int(differs.sum()), differs.size
    if count > FEW:
        twin = next((key for key, values in everything.items() if key != name and np.array_equal(values, theirs)), None)
        if twin is not None and size > 1:
            return ANOTHERS, f"its values are our {twin}"
    where = f"{count} of {size} values differ" if count < size else "all values differ"
    kind, first = A_FEW if count <= FEW < size else UNRELATED, _first(ours, theirs, differs)
    with np.errstate(all="ignore"):
        ratios = theirs[differs] / ours[differs]
        if np.isfinite(ratios).all() and np.ptp(ratios) <= 16 * UNIT_ROUNDOFF * np.abs(ratios).max():
            return kind, f"{where}: {first}, {ratios[0]:.6g} times ours{' like the others' if count > 1 else ''}"
        share = root_mean_square(theirs - ours) / (root_mean_square(ours) or 1)
    return kind, f"{where}, by {share:.2g} of their rms: {first}"


def _first(ours: Array, theirs: Array, differs: Array) -> str:
    place = tuple(int(index) for index in np.argwhere(differs)[0])
    return f"at {list(place)} it has {theirs[place]:.6g} for our {ours[place]:.6g}"


def _compare_folded(
    found: dict[str, ArrayComparison], node: Node, their_node: Node, ours: Weights, theirs: Weights
) -> None:
    """Add what becomes of the arrays of one convolution when batch norm is folded into it."""
    names = [name for name in node.weights.values() if name in found]
    if not any(found[name].differs for name in names):
        return
    if any(name not in theirs or theirs[name].shape != ours[name].shape for name in names):
        return
    if any(name not in theirs for name in their_node.weights.values()):
        return
    kernels, biases = zip(fold_weights(node, ours), fold_weights(their_node, theirs), strict=True)
    terms = (_bias_terms(node, ours), _bias_terms(their_node, theirs))
    kernel = _relate_folded(*kernels, 0.0)
    bias = _relate_folded(*biases, SAME_TERMS * np.maximum(*terms))
    is_same = kernel.kind == bias.kind == EQUAL
    for role, name in node.weights.items():
        part, relation = ("kernel", kernel) if role == "weight" else ("bias", bias)
        array = found[name]
        is_new = array.kind in (UNRELATED, A_FEW)
        if not array.differs or (relation.kind == UNRELATED and array.kind != UNRELATED):
            continue
        if not is_same and relation.words in array.how:
            continue  # which says no more
        what = "both sides are the same" if is_same else f"the {part} is {relation.words}"
        kind = array.kind if not is_new or relation.kind == UNRELATED else FOLDED if is_same else relation.kind
        left = relation.left if is_new else array.left
        how = f"{array.how}; with batch norm folded in, {what}"
        found[name] = dataclasses.replace(array, kind=kind, how=how, left=left, is_same_folded=is_same)


def _bias_terms(node: Node, weights: Weights) -> Array:
    """Return the sum of the sizes of what a folded bias is made of: what each rounding of it is a share of."""
    if "scale" not in node.weights:
        return np.zeros(len(weights[node.weights["weight"]]))
    factor, shift, mean = normalization_factors(node, weights, ("scale", "shift"))
    sizes: Array = np.abs(shift) + np.abs(mean * factor)
    return sizes


def _relate_folded(ours: Array, theirs: Array, least: Array | float) -> Relation:
    """Relate folded weights, which are called equal where each side's own rounding explains the difference."""
    if np.all(np.abs(ours - theirs) <= SAME_FOLDED * np.abs(theirs) + least):
        return Relation(EQUAL, f"the same within {SAME_FOLDED:g} of each value")
    relation = relate(ours.astype(np.float32), theirs.astype(np.float32))
    if relation is not None:
        return relation
    largest = float(np.abs(ours - theirs).max())
    grid = describe_grid(ours, theirs.astype(np.float32).astype(np.float64))
    words = f"off by {largest:.2g} at most, of an rms of {root_mean_square(ours):.2g}{grid}"
    return Relation(UNRELATED, words, largest)
