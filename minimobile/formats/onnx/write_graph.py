"""A graph at one size of picture as ONNX operators, each operation by the entry of one table.

Batch norm stays an operator of its own unless the graph was folded before: so every weight keeps its bits, and runtimes
fold it when they load. Padding is written out in numbers, which every runtime reads in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.onnx.write_model import Attribute, Model, Operator, Size, Value
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.batch_norm import ROLES
from minimobile.operations.folding import fold_weights
from minimobile.operations.operation import Weights
from minimobile.operations.shapes import explicit_padding, infer_shapes, sliding_window
from minimobile.operations.table import CONVOLUTIONS, operation_of
from minimobile_kernels.geometry import Window

Array = NDArray[Any]
CLASSIFIER = "classifier"


def write_graph(
    graph: Graph,
    weights: Weights,
    shape: tuple[Size, int, int, int],
    names: Mapping[str, str] | None = None,
    dtype: str = "float32",
) -> Model:
    """Return the model that computes a graph's outputs from pixel values of `shape` (N or its name, C, H, W).

    Nodes are called as those of the graph, and so are the tensors that they make, except for those in `names` (node ->
    tensor). What a classifier makes, and a mean that `names` renames, is a row, (N, C); all else is (N, C, H, W).
    `dtype` "float16" stores weights in half the bytes, and the model itself widens them. Raises FormatError for what
    has no form in ONNX.
    """
    writer = GraphWriter(graph, weights, shape, names or {}, dtype)
    for node in graph.nodes:
        _WRITERS.get(node.op, GraphWriter.refuse)(writer, node)
        if node.name in writer.rows and node.name != CLASSIFIER:
            row = writer.tensor(node.name)
            writer.operators.append(Operator("Flatten", row, (node.name,), row, {"axis": 1}))
    return Model(
        tuple(writer.operators),
        writer.constants,
        (Value(INPUT, "float32", shape),),
        tuple(Value(writer.tensor(name), "float32", writer.shape(name)) for name in graph.outputs),
    )


class GraphWriter:
    """What the entries of the table work with: operators and constants so far, and the tensors of a graph's nodes."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        shape: tuple[Size, int, int, int],
        names: Mapping[str, str],
        dtype: str,
    ) -> None:
        self.weights = weights
        self.batch = shape[0]
        self.maps = infer_shapes(graph, *shape[2:])
        self.names = names
        self.is_half = dtype == "float16"
        self.operators: list[Operator] = []
        self.constants: dict[str, Array] = {}
        self.widened: dict[str, str] = {}
        self.rows = {name for name in self.names if name in graph.outputs and operation_of(graph.node(name)).sees_all}

    def tensor(self, name: str) -> str:
        """Return what a node's tensor is called."""
        return self.names.get(name, name)

    def shape(self, name: str) -> tuple[Size, ...]:
        """Return the shape of a node's tensor."""
        return (self.batch, *(self.maps[name][:1] if name in self.rows else self.maps[name]))

    def add(self, kind: str, node: Node, inputs: tuple[str, ...], **attributes: Attribute) -> None:
        """Append the operator that makes a node's tensor."""
        tensor = node.name if node.name in self.rows and node.name != CLASSIFIER else self.tensor(node.name)
        self.operators.append(Operator(kind, node.name, inputs, tensor, attributes))

    def add_before(self, kind: str, node: Node, what: str, inputs: tuple[str, ...], **attributes: Attribute) -> str:
        """Append an operator that a node needs before its own; returns the tensor it makes."""
        name = f"{node.name}.{what}"
        self.operators.append(Operator(kind, name, inputs, name, attributes))
        return name

    def source(self, node: Node, index: int = 0) -> str:
        """Return the tensor of one of a node's inputs."""
        return self.tensor(node.inputs[index])

    def keep(self, name: str, values: Array, is_weight: bool = True) -> str:
        """Keep a constant; returns the tensor of float32 that holds it."""
        if not (self.is_half and is_weight):
            self.constants[name] = values
            return name
        if name not in self.widened:
            self.constants[name] = values.astype(np.float16)
            self.widened[name] = f"{name}.float32"
            self.operators.append(Operator("Cast", self.widened[name], (name,), self.widened[name], {"to": 1}))
        return self.widened[name]

    def convolution(self, node: Node) -> tuple[str, ...]:
        """Keep kernel and bias; returns their tensors: without batch norm folded in, under their own names and bits."""
        values = {role: self.weights[name] for role, name in node.weights.items() if role in ("weight", "bias")}
        names = {role: node.weights[role] for role in values}
        if "scale" in node.weights or "weight_quantization" in node.attributes:
            values = dict(zip(("weight", "bias"), fold_weights(node, self.weights), strict=True))
            names = {role: f"{node.name}.{role}" for role in values}
        weight = values["weight"]
        if node.name not in self.rows:
            values["weight"] = weight.reshape(*weight.shape, *[1] * (4 - weight.ndim))
        with np.errstate(over="ignore"):
            return tuple(self.keep(names[role], array.astype(np.float32)) for role, array in values.items())

    def refuse(self, node: Node) -> None:
        """Raise FormatError."""
        raise FormatError(f"{node.name}: expected an operation that can be written for ONNX, got {node.op}")


def _write_convolution(writer: GraphWriter, node: Node) -> None:
    height, width = writer.maps[node.inputs[0]][1:]
    if node.name == CLASSIFIER and (height, width) == (1, 1):
        writer.rows.add(node.name)
        row = writer.source(node)
        if node.inputs[0] not in writer.rows:
            row = writer.add_before("Flatten", node, "row", (row,), axis=1)
        writer.add("Gemm", node, (row, *writer.convolution(node)), transB=1)
        return
    slide = sliding_window(node, height, width)
    weight = writer.weights[node.weights["weight"]]
    writer.add(
        "Conv",
        node,
        (writer.source(node), *writer.convolution(node)),
        kernel_shape=(slide.kernel_height, slide.kernel_width),
        group=len(weight) if CONVOLUTIONS[node.op].is_by_channel else 1,
        strides=(slide.stride,) * 2,
        dilations=(slide.dilation,) * 2,
        pads=_read_pads(node, slide),
    )


def _read_pads(node: Node, slide: Window) -> tuple[int, int, int, int]:
    """Return top, left, bottom, right: pairs as they are, SAME as it comes out at this size."""
    padding = node.attributes.get("padding", "SAME")
    if isinstance(padding, str):
        return explicit_padding(slide)
    (top, bottom), (left, right) = padding
    return top, left, bottom, right


def _write_batch_norm(writer: GraphWriter, node: Node) -> None:
    arrays = (writer.weights[node.weights[role]].astype(np.float32) for role in ROLES)
    kept = [writer.keep(node.weights[role], values) for role, values in zip(ROLES, arrays, strict=True)]
    writer.add("BatchNormalization", node, (writer.source(node), *kept), epsilon=float(node.attributes["epsilon"]))


def _write_activation(writer: GraphWriter, node: Node) -> None:
    function, x = node.attributes["function"], writer.source(node)

    def keep(name: str, value: float) -> str:
        return writer.keep(name, np.array(value, np.float32), is_weight=False)

    if function == "relu6":
        writer.add("Clip", node, (x, keep("zero", 0), keep("six", 6)))
    elif function == "leaky_relu":
        writer.add("LeakyRelu", node, (x,), alpha=0.01)
    elif function == "silu":
        writer.add("Mul", node, (x, writer.add_before("Sigmoid", node, "sigmoid", (x,))))
    elif function == "gelu":  # x / 2 * (1 + erf(x / sqrt 2)); the operator Gelu came with operator set 20
        scaled = writer.add_before("Mul", node, "scaled", (x, keep("root_of_half", np.sqrt(0.5))))
        error = writer.add_before("Erf", node, "erf", (scaled,))
        raised = writer.add_before("Add", node, "raised", (error, keep("one", 1)))
        halved = writer.add_before("Mul", node, "halved", (x, keep("half", 0.5)))
        writer.add("Mul", node, (halved, raised))
    elif function in _ACTIVATIONS:
        writer.add(_ACTIVATIONS[function], node, (x,))
    else:
        writer.refuse(node)


def _write_pool(writer: GraphWriter, node: Node) -> None:
    slide = sliding_window(node, *writer.maps[node.inputs[0]][1:])
    kernel, strides = (slide.kernel_height, slide.kernel_width), (slide.stride,) * 2
    writer.add("AveragePool", node, (writer.source(node),), kernel_shape=kernel, strides=strides)


def _write_resize(writer: GraphWriter, node: Node) -> None:
    """In MobileNets always from a single pixel, whose copies no rule of corners can change."""
    if writer.maps[node.inputs[0]][1:] != (1, 1):
        writer.refuse(node)
    scales = writer.keep(f"{node.name}.scales", np.array([1, 1, *writer.maps[node.name][1:]], np.float32), False)
    mode = "align_corners" if node.attributes["align_corners"] else "half_pixel"
    inputs = (writer.source(node), "", scales)
    writer.add("Resize", node, inputs, mode="linear", coordinate_transformation_mode=mode)


def _as_it_is(kind: str, **attributes: Attribute) -> Callable[[GraphWriter, Node], None]:
    def write(writer: GraphWriter, node: Node) -> None:
        writer.add(kind, node, tuple(map(writer.tensor, node.inputs)), **attributes)

    return write


_ACTIVATIONS = {"relu": "Relu", "linear": "Identity", "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish"}
_WRITERS: Mapping[str, Callable[[GraphWriter, Node], None]] = {
    "conv2d": _write_convolution,
    "depthwise_conv2d": _write_convolution,
    "pointwise_conv2d": _write_convolution,
    "batch_norm": _write_batch_norm,
    "activation": _write_activation,
    "add": _as_it_is("Add"),
    "concatenate": _as_it_is("Concat", axis=1),
    "average_pool2d": _write_pool,
    "global_average_pool2d": _as_it_is("GlobalAveragePool"),
    "resize_bilinear": _write_resize,
}
