"""A layer, or a path of several, that may differ: what the other side had before it, and what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.disturbed_runs import run_narrower
from minimobile.comparison.float32_bounds import (
    Grid,
    estimate,
    exact,
    is_path,
    largest_excess,
    quantise,
)
from minimobile.comparison.float64_run import fold_rounded
from minimobile.networks.graph import INPUT, Graph, Node, sweep_back
from minimobile.operations.estimate import Estimate
from minimobile.operations.operation import Weights
from minimobile.operations.table import is_convolution, operation_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Suspect:
    """The nodes from what the other side had before them to what it `found`.

    `inputs` are the other side's own values, so that nothing from earlier layers is mixed in; `grid` is that of
    `found`, where it was kept in integers. `deviation` is that of a path's error, once it has been measured.
    Shapes: (N, H, W, C).
    """

    nodes: tuple[Node, ...]
    weights: Weights
    inputs: Mapping[str, Estimate]
    found: Array
    grid: Grid | None = None
    deviation: Array | None = None

    @property
    def is_path(self) -> bool:
        """Whether there is more than one layer."""
        return is_path(self.nodes)

    def estimate(self) -> Estimate:
        """Return what our definition makes of the inputs."""
        return estimate(self.nodes, self.weights, self.inputs, self.deviation)

    def with_nodes(self, change: Callable[[Node], Node]) -> Estimate:
        """Return the estimate with nodes changed."""
        return estimate(tuple(map(change, self.nodes)), self.weights, self.inputs, self.deviation)

    def with_attributes(self, nodes: Iterator[Node], **attributes: Any) -> Estimate:
        """Return the estimate with other attributes of some nodes."""
        names = {node.name for node in nodes}

        def change(node: Node) -> Node:
            if node.name not in names:
                return node
            return dataclasses.replace(node, attributes={**node.attributes, **attributes})

        return self.with_nodes(change)

    def with_weights(self, changed: Mapping[str, Array]) -> Estimate:
        """Return the estimate with other values of some weights, given by canonical name."""
        return estimate(self.nodes, {**self.weights, **changed}, self.inputs, self.deviation)

    def with_pixels(self, pixels: Estimate) -> Estimate:
        """Return the estimate with other pixels."""
        return estimate(self.nodes, self.weights, {**self.inputs, INPUT: pixels}, self.deviation)

    def sliding_nodes(self) -> Iterator[Node]:
        """Yield the convolutions with a kernel larger than one pixel."""
        return (
            node for node in self.nodes if node.attributes.get("kernel_size", 1) > 1 and "padding" in node.attributes
        )

    def convolutions(self) -> Iterator[Node]:
        """Yield what has a kernel."""
        return filter(is_convolution, self.nodes)

    def normalizations(self) -> Iterator[Node]:
        """Yield the batch norms."""
        return (node for node in self.nodes if operation_of(node).is_normalization)

    def nodes_with(self, attribute: str) -> Iterator[Node]:
        """Yield the nodes that have an attribute."""
        return (node for node in self.nodes if attribute in node.attributes)

    def would_see_narrower_weights(self, expected: Estimate) -> bool:
        """Whether the limits would find out kernels of a narrower number type."""
        values = {name: x.value for name, x in self.inputs.items()}
        disturbed = run_narrower(fold_rounded(self.nodes), self.weights, values)
        return largest_excess(quantise(expected, self.grid), disturbed) > 1


class Candidate(NamedTuple):
    """What the other side may have done, what would come of it, and the values to compare with that."""

    sentence: str
    expected: Estimate
    found: Array


def isolate(graph: Graph, weights: Mapping[str, Array], layer: str, known: Mapping[str, Array]) -> Suspect:
    """Return one layer as a suspect: the nodes back to the nearest known values (`pixel_values` must be among them).

    Shapes: known (N, H, W, C).
    """

    def reads(node: Node) -> list[str]:
        return [name for name in node.inputs if name not in known]

    nodes = sweep_back(graph.nodes, [layer], lambda node: (node.name,), reads)
    inputs = sorted({name for node in nodes for name in node.inputs if name in known})
    return Suspect(nodes, weights, {name: exact(known[name]) for name in inputs}, known[layer])


def explains(candidate: Candidate, grid: Grid | None = None) -> bool:
    """Whether float32 explains what is left of the difference."""
    expected, found = candidate.expected, candidate.found
    return expected.value.shape == found.shape and largest_excess(quantise(expected, grid), found) <= 1


def take_channels(estimated: Estimate, channels: slice) -> Estimate:
    """Return some channels of an estimate (N, H, W, C)."""
    return Estimate(*(getattr(estimated, field.name)[..., channels] for field in dataclasses.fields(estimated)))


def as_floats(weights: Weights, name: str) -> Array:
    """Return a weight in float64."""
    return weights[name].astype(np.float64)
