"""What a network costs: output shapes, parameters and multiply-adds of every layer for one image size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minimobile.errors import InputError
from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.operations.operation import MapShape
from minimobile.operations.shapes import infer_shapes, sliding_window
from minimobile.operations.table import operation_of
from minimobile_kernels.geometry import axis_padding, pad_amounts

_TRAINED_ROLES = ("weight", "bias")  # batch norm's scale and shift, but not its statistics
KINDS = ("Conv 1x1", "Conv DW 3x3", "Conv 3x3", "Fully Connected")
"""The words, and the order, of V1's paper (Table 2)."""

LAYER_STEPS = ("convolution", "normalization", "activation", "add")
"""What nodes of a layer are called beside its last, which has the layer's name."""

AxisPads = tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """One row. `input_shape` and `output_shape` are (channels, height, width) of one image.

    `kind` is the paper's word for a convolution ("Conv DW 3x3"), None for anything else. `kernel_weights` are those of
    `parameters` that V1's paper counts: no biases and no batch norm. `kernel_size` is (height, width), `padding` is
    ((top, bottom), (left, right)), in pixels, for this image size. `is_computed` says whether the outputs need it.
    """

    name: str
    operation: str
    output_shape: MapShape
    parameters: int
    multiply_adds: int
    is_computed: bool = True
    kind: str | None = None
    input_shape: MapShape = (0, 0, 0)
    kernel_weights: int = 0
    kernel_size: tuple[int, int] | None = None
    stride: int = 1
    dilation: int = 1
    padding: tuple[AxisPads, AxisPads] = ((0, 0), (0, 0))

    @property
    def is_pool(self) -> bool:
        """Whether a window slides that has no weights."""
        return self.kind is None and self.kernel_size is not None


class KindCost(NamedTuple):
    """What the convolutions of one kind cost together, and their shares of the whole network's, between 0 and 1."""

    kind: str
    multiply_adds: int
    multiply_adds_share: float
    weights: int
    weights_share: float


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

    @property
    def kinds(self) -> tuple[KindCost, ...]:
        """The costs by kind of convolution, as in V1's paper, Table 2: of what is computed, kernels' weights only."""
        chosen = [layer for layer in self.layers if layer.kind is not None and layer.is_computed]
        multiply_adds = sum(layer.multiply_adds for layer in chosen)
        weights = sum(layer.kernel_weights for layer in chosen)
        rows = []
        for kind in KINDS:
            work = sum(layer.multiply_adds for layer in chosen if layer.kind == kind)
            kernels = sum(layer.kernel_weights for layer in chosen if layer.kind == kind)
            if kernels:
                rows.append(KindCost(kind, work, work / multiply_adds, kernels, kernels / weights))
        return tuple(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: {"layers", "totals": {"parameters", "multiply_adds"}, "kinds"}."""
        return {
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "totals": {"parameters": self.parameters, "multiply_adds": self.multiply_adds},
            "kinds": [kind._asdict() for kind in self.kinds],
        }


def profile(graph: Graph, image_size: int | Sequence[int]) -> Profile:
    """Return the cost of each layer for one image of `image_size`, an integer or (height, width).

    A layer is a convolution with its batch norm and activation: what `profile_nodes` gives, gathered by layer name.
    """
    names = layer_names(graph)
    layers: dict[str, Cost] = {}
    for cost in profile_nodes(graph, image_size):
        name = names[cost.name]
        first = layers.get(name, dataclasses.replace(cost, parameters=0, multiply_adds=0))
        layers[name] = dataclasses.replace(
            first,
            name=name,
            output_shape=cost.output_shape,
            parameters=first.parameters + cost.parameters,
            multiply_adds=first.multiply_adds + cost.multiply_adds,
        )
    return Profile(tuple(layers.values()))


def layer_names(graph: Graph) -> dict[str, str]:
    """Return {name of a node: name of the layer that it is a step of}; a layer has the name of its last node."""
    names = {node.name for node in graph.nodes}
    layers = {}
    for node in graph.nodes:
        head, _, step = node.name.rpartition(".")
        layers[node.name] = head if step in LAYER_STEPS and head in names else node.name
    return layers


def profile_nodes(graph: Graph, image_size: int | Sequence[int]) -> tuple[Cost, ...]:
    """Return the cost of each single node, in the graph's order.

    A node that no output needs (`conv_1x1` of a segmentation network) keeps its parameters and costs nothing.
    """
    shapes = infer_shapes(graph, *read_size(image_size))
    needed = {node.name for node in needed_nodes(graph, graph.outputs)}
    return tuple(_cost(graph, node, shapes, node.name in needed) for node in graph.nodes)


def _cost(graph: Graph, node: Node, shapes: dict[str, MapShape], is_computed: bool) -> Cost:
    operation, out, input_shape = operation_of(node), shapes[node.name], shapes[node.inputs[0]]
    parameters = sum(math.prod(graph.shapes[node.weights[role]]) for role in _TRAINED_ROLES if role in node.weights)
    read = out if operation.joins else input_shape
    cost = Cost(node.name, node.op, out, parameters, 0, is_computed, input_shape=read)
    if not operation.slides:
        return cost
    slide, work = sliding_window(node, *input_shape[1:]), operation.work(node, out, graph.shapes)
    cost = dataclasses.replace(cost, kernel_size=(slide.kernel_height, slide.kernel_width), stride=slide.stride)
    if work is None:
        return cost
    return dataclasses.replace(
        cost,
        kind=work.kind,
        multiply_adds=work.multiply_adds if is_computed else 0,
        kernel_weights=work.kernel_weights,
        dilation=slide.dilation,
        padding=node_padding(node, input_shape),
    )


def node_padding(node: Node, input_shape: MapShape) -> tuple[AxisPads, AxisPads]:
    """Return ((top, bottom), (left, right)) in pixels of a convolution over an input (channels, height, width)."""
    padding = node.attributes.get("padding", "VALID")
    size, stride, dilation = (node.attributes.get(key, 1) for key in ("kernel_size", "stride", "dilation"))
    height, width = (
        pad_amounts(input_shape[1 + axis], size, stride, dilation, axis_padding(padding, axis)) for axis in (0, 1)
    )
    return height, width


def read_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of an integer or a pair, or raise InputError."""
    sizes = list(image_size) if isinstance(image_size, Sequence) else [image_size]
    sizes = [int(size) if isinstance(size, np.integer) else size for size in sizes]
    if len(sizes) not in (1, 2) or not all(type(size) is int and size >= 1 for size in sizes):
        raise InputError(f"image_size: expected a positive integer or (height, width), got {image_size!r}")
    return sizes[0], sizes[-1]
