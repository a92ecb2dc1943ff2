"""From a graph whose weights and maps have their grids to the operations of a network, in bytes or in floats."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.shapes import infer_shapes, sliding_window
from minimobile.operations.table import operation_of
from minimobile.quantized.arithmetic import ACTIVATIONS
from minimobile.quantized.network import Network, Operation, Tensor

Grids = Mapping[str, Tensor]
"""By node: a tensor without shape, with the type, the scale and the zero point of the node's values."""
Kernels = Mapping[str, tuple[Tensor, Tensor]]
"""By node of a convolution: weight (C_out, K_h, K_w, C_in) or (1, K_h, K_w, C), and bias (C_out)."""
Form = tuple[str, tuple[str, ...], dict[str, Any]]  # operation, inputs, attributes


def assemble(graph: Graph, size: tuple[int, int], grids: Grids, kernels: Kernels, where: str) -> Network:
    """Return the network that computes a graph's outputs from one picture of `size` (height, width).

    Batch norm has been folded and activations fused; tensors are called as nodes. Bytes are brought to another grid
    where a join's input has another than the join. A mean over the whole map whose grid is its input's is a pool,
    otherwise a mean, which alone can change it. Raises FormatError for what has no form in such a network.
    """
    assembly = _Assembly(graph, size, grids, kernels, where)
    assembly.add_map(INPUT, INPUT, grids[INPUT])
    for node in graph.nodes:
        assembly.add(node)
    return Network(assembly.tensors, tuple(assembly.operations), (INPUT,), graph.outputs)


def as_stored(op: str, weight: NDArray[Any]) -> NDArray[Any]:
    """Return a convolution's weight in the shape that networks hold, from that of the kernels (`layout_weights`)."""
    if op == "depthwise_conv2d":
        return weight[None]
    return weight[:, None, None] if op == "pointwise_conv2d" else weight


class _Assembly:
    def __init__(self, graph: Graph, size: tuple[int, int], grids: Grids, kernels: Kernels, where: str) -> None:
        self.shapes = infer_shapes(graph, *size)
        self.grids = grids
        self.kernels = kernels
        self.where = where
        self.tensors: dict[str, Tensor] = {}
        self.operations: list[Operation] = []

    def add(self, node: Node) -> None:
        self.add_map(node.name, node.name, self.grids[node.name])
        op, inputs, attributes = _FORMS.get(node.op, _Assembly.refuse)(self, node)
        self.operations.append(Operation(op, inputs, node.name, attributes))

    def refuse(self, node: Node) -> Form:
        found = str(node.attributes.get("function", node.op))
        self.fail(node.name, "an operation of a MobileNet with relu6, relu or no activation", found)

    def activation(self, node: Node) -> dict[str, Any]:
        function = node.attributes.get("activation", "linear")
        if function not in ACTIVATIONS:
            self.fail(node.name, "relu6, relu or no activation", function)
        return {"activation": function}

    def convolution(self, node: Node) -> Form:
        activation, padded = self.activation(node), self.pad(node)
        weight, bias = self.kernels[node.name]
        self.tensors |= {weight.name: weight, bias.name: bias}
        own = {name: node.attributes.get(name, 1) for name in ("stride", "dilation")}
        padding = node.attributes.get("padding", "SAME")
        op = {"pointwise_conv2d": "conv2d"}.get(node.op, node.op)
        attributes = activation | own | {"padding": padding if isinstance(padding, str) else "VALID"}
        return op, (padded, weight.name, bias.name), attributes

    def sum(self, node: Node) -> Form:
        return node.op, node.inputs, self.activation(node)

    def pool(self, node: Node) -> Form:
        slide = sliding_window(node, *self.shapes[node.inputs[0]][1:])
        attributes = {"kernel_size": (slide.kernel_height, slide.kernel_width), "stride": slide.stride}
        return "average_pool2d", node.inputs, {**attributes, "padding": "VALID", "activation": "linear"}

    def mean(self, node: Node) -> Form:
        if _is_same(self.tensors[node.inputs[0]], self.tensors[node.name]):
            return self.pool(node)
        return "mean", node.inputs, {"axes": (1, 2), "keep_dims": True}

    def resize(self, node: Node) -> Form:
        is_aligned = node.attributes["align_corners"]
        attributes = {"align_corners": is_aligned, "half_pixel_centers": not is_aligned}
        return node.op, operation_of(node).reads(node), attributes

    def join(self, node: Node) -> Form:
        return node.op, tuple(self.bring_to(name, self.grids[node.name]) for name in node.inputs), {"axis": 3}

    def add_map(self, name: str, shaped_as: str, by: Tensor) -> str:
        """Add a map with the shape of a node's values and the grid of another tensor."""
        channels, height, width = self.shapes[shaped_as]
        self.tensors[name] = dataclasses.replace(by, name=name, shape=(1, height, width, channels))
        return name

    def bring_to(self, name: str, by: Tensor) -> str:
        """Return a map's own name, or that of its values on another grid."""
        if not len(by.scales) or _is_same(self.tensors[name], by):
            return name
        brought = self.add_map(f"{name}.quantized", name, by)
        self.operations.append(Operation("quantize", (name,), brought))
        return brought

    def pad(self, node: Node) -> str:
        """Return the convolution's input, with the zeros around it that are not as SAME has them."""
        padding, source = node.attributes.get("padding", "VALID"), node.inputs[0]
        if isinstance(padding, str) or not np.any(padding):
            return source
        tensor = self.tensors[source]
        pairs = ((0, 0), *padding, (0, 0))
        shape = tuple(side + sum(pair) for side, pair in zip(tensor.shape, pairs, strict=True))
        name = f"{node.name}.padding"
        self.tensors[name] = dataclasses.replace(tensor, name=name, shape=shape)
        self.operations.append(Operation("pad", (source,), name, {"padding": pairs}))
        return name

    def fail(self, name: str, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: {name}: expected {expected}, found {found}")


_FORMS: Mapping[str, Callable[[_Assembly, Node], Form]] = {
    "conv2d": _Assembly.convolution,
    "depthwise_conv2d": _Assembly.convolution,
    "pointwise_conv2d": _Assembly.convolution,
    "add": _Assembly.sum,
    "average_pool2d": _Assembly.pool,
    "global_average_pool2d": _Assembly.mean,
    "resize_bilinear": _Assembly.resize,
    "concatenate": _Assembly.join,
}


def _is_same(tensor: Tensor, by: Tensor) -> bool:
    """Tell whether two tensors have one grid; floats have none, and a mean of them is a mean."""
    return bool(len(tensor.scales)) and (tensor.scale, tensor.zero) == (by.scale, by.zero)
