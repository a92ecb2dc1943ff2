"""The value that is farthest off, written out as its sum on both sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.float32_bounds import excess, quantise
from minimobile.comparison.suspect import Suspect
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import INPUT, Graph
from minimobile.operations.operation import Weights
from minimobile.tracing.explain import explain
from minimobile.tracing.explanation import Explanation

Array = NDArray[Any]


@dataclass(frozen=True)
class WorstValue:
    """One value of a layer at `position` (row, column, channel): what both sides have there, and how it comes about.

    `excess` is how many times more than float32 explains theirs is off. `ours` is the sum of our inputs; `theirs` is
    that of their inputs, with their weights where these are at hand (`has_their_weights`), else ours: what their value
    should be. `theirs` is None where the other side did not show what the layer reads.
    """

    layer: str
    position: tuple[int, int, int]
    excess: float
    our_value: float
    their_value: float
    ours: Explanation
    theirs: Explanation | None = None
    has_their_weights: bool = False

    def __str__(self) -> str:
        row, column, channel = self.position
        place = f"{self.layer} at row {row}, column {column}, channel {channel}"
        sentence = f"farthest off: {place}: theirs {self.their_value:.9g}, ours {self.our_value:.9g}"
        if self.theirs is None:
            return sentence
        weights = "weights" if self.has_their_weights else "inputs and our weights"
        return f"{sentence}; their {weights} make it {float(self.theirs.value):.9g}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, both sums among them."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        sums = {side: None if plain[side] is None else plain[side].to_dict() for side in ("ours", "theirs")}
        return {**plain, **sums, "position": list(self.position)}


class _Known:
    """A runner that has run already. Shapes: values (N, H, W, C), by node."""

    def __init__(self, values: Mapping[str, Array]) -> None:
        self.values = values

    def run(self, pixel_values: Array, outputs: Sequence[str], data_format: str = "channels_first") -> dict[str, Array]:
        """Return the first picture's values of the outputs; raises KeyError where they are not known."""
        return {name: self.values[name][:1] for name in outputs}


def find_worst(
    model: MobileNetModel, layer: str, suspect: Suspect, pixels: Array, known: Mapping[str, Array],
    their_weights: Weights | None,
) -> WorstValue | None:  # fmt: skip
    """Return the value of a layer that is farthest off, None where shapes differ or the network is one of integers.

    Of several pictures the first is looked at. Shapes: pixels (N, C, H, W), known (N, H, W, C): the other side's.
    """
    expected = suspect.estimate()
    if model.is_quantized or expected.value.shape != suspect.found.shape:
        return None
    multiples = excess(quantise(expected, suspect.grid), suspect.found)[0]
    row, column, channel = (int(index) for index in np.unravel_index(np.argmax(multiples), multiples.shape))
    position = (row, column, channel)
    ours = model.explain(pixels[:1], layer, position)
    weights = model.state_dict()
    used = {name for node in suspect.nodes for name in node.weights.values()}
    own = their_weights or {}
    has_own = bool(used) and all(name in own and own[name].shape == weights[name].shape for name in used)
    theirs = _explain_known(model.graph, {**weights, **own} if has_own else weights, known, layer, position)
    return WorstValue(
        layer, position, float(multiples[position]), float(ours.computed), float(suspect.found[0][position]), ours,
        theirs, has_own,
    )  # fmt: skip


def _explain_known(
    graph: Graph, weights: Weights, known: Mapping[str, Array], layer: str, position: tuple[int, int, int]
) -> Explanation | None:
    values = {name: x.astype(np.float32) for name, x in known.items()}
    runner: Any = _Known(values)
    try:
        return explain(graph, weights, runner, values[INPUT][:1], layer, position)
    except KeyError:
        return None
