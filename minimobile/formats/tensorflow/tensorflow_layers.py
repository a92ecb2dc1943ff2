"""A frozen graph on its way to layers: what is translated so far, and the attributes that many operations share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.network import Layer
from minimobile.formats.tensorflow.graph_constants import Constants
from minimobile.formats.tensorflow.graph_def import GraphNode

Pair = tuple[int, int]


@dataclasses.dataclass
class Translation:
    """What has been translated: layers by name, and which layer holds the value of a tensor.

    `readers` has the nodes that read a tensor, identities followed.
    """

    where: str
    constants: Constants
    readers: Mapping[str, list[GraphNode]]
    layers: dict[str, Layer] = dataclasses.field(default_factory=dict)
    flows: dict[str, str] = dataclasses.field(default_factory=dict)
    scaled: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Products that wait for the sum after them: tensor -> (layer, constant factor)."""
    unfolded: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Convolutions into which the graph folds batch norm: layer -> (its weight, batch norm's scale)."""

    def flow(self, node: GraphNode) -> str | None:
        """Return the layer whose value is the node's first input; None for a constant and for what is passed over."""
        return self.flows.get(node.inputs[0]) if node.inputs else None

    def constant(self, node: GraphNode, index: int) -> NDArray[Any] | None:
        """Return an input of the node that is a constant."""
        return self.constants.values.get(node.inputs[index]) if index < len(node.inputs) else None

    def integers(self, node: GraphNode, index: int) -> NDArray[Any] | None:
        """Return an input of the node that is a constant of integers."""
        values = self.constant(node, index)
        return values if values is not None and values.dtype.kind in "iu" else None

    def add(self, node: GraphNode, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Add a layer without arrays."""
        self.put(Layer(node.name, op, tuple(inputs), attributes=attributes, tensor=node.name))

    def put(self, layer: Layer) -> None:
        """Add or replace a layer; its tensor is its value from here on."""
        self.layers[layer.name] = layer
        self.flows[layer.tensor] = layer.name

    def refuse(self, node: GraphNode, expected: str, found: object) -> FormatError:
        """Return the error that names a node."""
        return FormatError(f"{self.where}: node {node.name} ({node.op}): expected {expected}, found {found}")


def order_weight(op: str, weight: NDArray[Any]) -> NDArray[Any]:
    """Return a convolution's weight in PyTorch's order; TensorFlow's is H, W, I, O, or H, W, C, 1 if depthwise."""
    ordered: NDArray[Any] = weight.transpose((2, 3, 0, 1) if op == "depthwise_conv2d" else (3, 2, 0, 1))
    return ordered


def check_layout(translation: Translation, node: GraphNode) -> None:
    """Refuse any data format but NHWC."""
    layout = node.text("data_format", "NHWC")
    if layout != "NHWC":
        raise translation.refuse(node, "the data format NHWC", layout)


def read_square(translation: Translation, node: GraphNode, name: str) -> int:
    """Return the step on height and width, which has to be one and the same."""
    steps = node.integers(name, (1, 1, 1, 1))
    if len(steps) != 4 or steps[0] != 1 or steps[3] != 1 or steps[1] != steps[2] or steps[1] < 1:
        raise translation.refuse(node, f"{name} that are the same for height and width", steps)
    return steps[1]


def read_padding(translation: Translation, node: GraphNode) -> str | tuple[Pair, Pair]:
    """Return the padding as a `Layer` has it."""
    padding = node.text("padding", "")
    if padding != "EXPLICIT":
        if padding not in ("SAME", "VALID"):
            raise translation.refuse(node, "SAME, VALID or EXPLICIT padding", repr(padding[:40]))
        return padding
    amounts = node.integers("explicit_paddings", ())
    return read_amounts(translation, node, np.array(amounts).reshape(-1, 2) if len(amounts) == 8 else np.zeros(0), 4)


def read_amounts(translation: Translation, node: GraphNode, amounts: NDArray[Any], count: int) -> tuple[Pair, Pair]:
    """Return (top, bottom), (left, right) of amounts for two axes, or for four of which only two may be padded."""
    rows = amounts.tolist() if amounts.shape == (count, 2) else []
    is_right = len(rows) == count and amounts.min() >= 0 and (count == 2 or not any(rows[0] + rows[3]))
    if not is_right:
        raise translation.refuse(node, "amounts of zero or more for height and width", str(rows)[:80])
    (top, bottom), (left, right) = rows if count == 2 else rows[1:3]
    return (int(top), int(bottom)), (int(left), int(right))
