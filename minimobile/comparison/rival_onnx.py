"""The network written as an ONNX model, each operation by the entry of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.sized_network import SizedNetwork
from minimobile.errors import UnavailableError
from minimobile.networks.graph import INPUT, Node
from minimobile.operations.shapes import sliding_window

Written = tuple[str, list[str], dict[str, Any]]  # operator, inputs, attributes


def write_onnx(network: SizedNetwork) -> bytes:
    """Return the network, with all outputs of its graph, as an ONNX model (operator set 17)."""
    onnx = import_module("onnx")
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    writer, nodes = _Writer(network), []
    for node in network.graph.nodes:
        operator, inputs, attributes = _WRITERS.get(node.op, _refuse)(writer, node)
        nodes.append(helper.make_node(operator, inputs, [node.name], **attributes))
    float32, shapes = onnx.TensorProto.FLOAT, writer.shapes
    outputs = {name: [network.shape[0], *shapes[name]] for name in network.graph.outputs}
    graph = helper.make_graph(
        nodes,
        "minimobile",
        [helper.make_tensor_value_info(INPUT, float32, list(network.shape))],
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs.items()],
        [array(values, name) for name, values in writer.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()  # type: ignore[no-any-return]


@dataclass
class _Writer:
    """What the entries of the table work with: the network, and the constants so far."""

    network: SizedNetwork
    constants: dict[str, NDArray[Any]] = field(
        default_factory=lambda: {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    )

    def __post_init__(self) -> None:
        self.shapes = self.network.shapes

    def keep(self, node: Node, **values: NDArray[Any]) -> list[str]:
        """Keep constants of a node, and return their names."""
        named = {f"{node.name}.{role}": array for role, array in values.items()}
        self.constants.update(named)
        return list(named)


def _convolution(writer: _Writer, node: Node) -> Written:
    weight, bias, groups = writer.network.convolution(node)
    slide = sliding_window(node, *writer.shapes[node.inputs[0]][1:])
    attributes = {
        "kernel_shape": list(weight.shape[2:]),
        "group": groups,
        "strides": [slide.stride] * 2,
        "dilations": [slide.dilation] * 2,
        "pads": list(writer.network.pads(node, *writer.shapes[node.inputs[0]][1:])),
    }
    return "Conv", [node.inputs[0], *writer.keep(node, weight=weight, bias=bias)], attributes


def _batch_norm(writer: _Writer, node: Node) -> Written:
    values = zip(("scale", "shift", "mean", "variance"), writer.network.normalization(node), strict=True)
    inputs = [node.inputs[0], *writer.keep(node, **dict(values))]
    return "BatchNormalization", inputs, {"epsilon": node.attributes["epsilon"]}


def _activation(writer: _Writer, node: Node) -> Written:
    function = node.attributes["function"]
    if function == "relu6":
        return "Clip", [node.inputs[0], "zero", "six"], {}
    if function == "relu":
        return "Relu", [node.inputs[0]], {}
    raise _cannot_write(node, function)


def _average_pool2d(writer: _Writer, node: Node) -> Written:
    slide = sliding_window(node, *writer.shapes[node.inputs[0]][1:])
    attributes = {"kernel_shape": [slide.kernel_height, slide.kernel_width], "strides": [slide.stride] * 2}
    return "AveragePool", [node.inputs[0]], attributes


def _resize_bilinear(writer: _Writer, node: Node) -> Written:
    """In MobileNets always from 1x1."""
    shape = np.array([writer.network.shape[0], *writer.shapes[node.name]], np.int64)
    return "Expand", [node.inputs[0], *writer.keep(node, shape=shape)], {}


def _as_it_is(operator: str, **attributes: Any) -> Callable[[_Writer, Node], Written]:
    return lambda writer, node: (operator, list(node.inputs), attributes)


def _refuse(writer: _Writer, node: Node) -> Written:
    raise _cannot_write(node, node.op)


def _cannot_write(node: Node, what: str) -> UnavailableError:
    return UnavailableError(f"{node.name}: expected an operation that can be written for ONNX, got {what}")


_WRITERS: Mapping[str, Callable[[_Writer, Node], Written]] = {
    "conv2d": _convolution,
    "depthwise_conv2d": _convolution,
    "pointwise_conv2d": _convolution,
    "batch_norm": _batch_norm,
    "activation": _activation,
    "add": _as_it_is("Add"),
    "concatenate": _as_it_is("Concat", axis=1),
    "average_pool2d": _average_pool2d,
    "global_average_pool2d": _as_it_is("GlobalAveragePool"),
    "resize_bilinear": _resize_bilinear,
}
