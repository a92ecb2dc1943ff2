"""What a network costs: output shapes, parameters and multiply-adds of every layer for one image size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minimobile.errors import InputError
from minimobile.graph import Graph, needed_nodes
from minimobile.shapes import CONVOLUTIONS, MapShape, infer_shapes

_TRAINED_ROLES = ("weight", "bias")  # batch norm's scale and shift, but not its statistics


@dataclass(frozen=True)
class Cost:
    """One row. `output_shape` is (channels, height, width) of one image; `is_computed` whether the outputs need it."""

    name: str
    operation: str
    output_shape: MapShape
    parameters: int
    multiply_adds: int
    is_computed: bool = True


@dataclass(frozen=True)
class Profile:
    """The rows of a network, and their sums."""

    layers: tuple[Cost, ...]

    @property
    def parameters(self) -> int:
        """Weights, biases, batch norm's scale and shift but not its statistics: as transformers counts."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Those of the convolutions and the classifier for one image; nothing else is counted, as in the papers."""
        return sum(layer.multiply_adds for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: {"layers": [...], "totals": {"parameters", "multiply_adds"}}."""
        totals = {"parameters": self.parameters, "multiply_adds": self.multiply_adds}
        return {"layers": [dataclasses.asdict(layer) for layer in self.layers], "totals": totals}


def profile(graph: Graph, image_size: int | Sequence[int]) -> Profile:
    """Return the cost of each layer for one image of `image_size`, an integer or (height, width).

    A layer is a convolution with its batch norm and activation: what `profile_nodes` gives, gathered by layer name.
    """
    names = {node.name for node in graph.nodes}
    layers: dict[str, Cost] = {}
    for cost in profile_nodes(graph, image_size):
        head, _, step = cost.name.rpartition(".")
        name = head if step in ("convolution", "normalization") and head in names else cost.name
        first = layers.get(name, dataclasses.replace(cost, parameters=0, multiply_adds=0))
        layers[name] = dataclasses.replace(
            first,
            name=name,
            output_shape=cost.output_shape,
            parameters=first.parameters + cost.parameters,
            multiply_adds=first.multiply_adds + cost.multiply_adds,
        )
    return Profile(tuple(layers.values()))


def profile_nodes(graph: Graph, image_size: int | Sequence[int]) -> tuple[Cost, ...]:
    """Return the cost of each single node, in the graph's order.

    A node that no output needs (`conv_1x1` of a segmentation network) keeps its parameters and costs nothing.
    """
    shapes = infer_shapes(graph, *_read_size(image_size))
    needed = {node.name for node in needed_nodes(graph, graph.outputs)}
    costs = []
    for node in graph.nodes:
        parameters = sum(math.prod(graph.shapes[node.weights[role]]) for role in _TRAINED_ROLES if role in node.weights)
        multiply_adds = 0
        if node.op in CONVOLUTIONS and node.name in needed:
            _, height, width = shapes[node.name]
            multiply_adds = height * width * math.prod(graph.shapes[node.weights["weight"]])
        costs.append(Cost(node.name, node.op, shapes[node.name], parameters, multiply_adds, node.name in needed))
    return tuple(costs)


def _read_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    sizes = [image_size] if isinstance(image_size, int) else list(image_size)
    if len(sizes) not in (1, 2) or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise InputError(f"image_size: expected a positive integer or (height, width), got {image_size!r}")
    return sizes[0], sizes[-1]
