"""From a network trained for quantisation to its integers: what TensorFlow's converter makes of it, without it.

Source: Jacob et al. (arXiv 1712.05877), section 2; TensorFlow, `lite/toco` and its successor in MLIR, for uint8.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.fake_quantization import FakeQuantization, Ranges, add_fake_quantization
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_batch_norm, fuse_activations, keep_needed
from minimobile.operations.shapes import infer_shapes, sliding_window
from minimobile.operations.table import layout_weights, operation_of
from minimobile.quantized.arithmetic import ACTIVATIONS
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.validation import check_network

_BYTES = np.dtype(np.uint8)
Converted = tuple[str, tuple[str, ...], dict[str, Any]]  # operation, inputs, attributes


def quantize_graph(
    graph: Graph, weights: Weights, ranges: Ranges, size: tuple[int, int], pixels: FakeQuantization, where: str
) -> Network:
    """Return the network of uint8 that computes a graph's one output from one picture of `size` (height, width).

    `ranges` are those of training, for all of the graph's weights and layers, `pixels` is that of pixel values. Tensors
    are called as nodes. Weights become the steps of their grid, biases int32 steps of scale_x * scale_weight; a join
    has the widest of its inputs' ranges, and the others are brought to it first. Raises FormatError for what has no
    form in bytes.
    """
    needed = keep_needed(graph, graph.outputs)
    settled = fuse_activations(fold_batch_norm(needed))
    rounded = {node.name: node for node in fold_batch_norm(add_fake_quantization(needed, ranges)).nodes}
    return _Converter(settled, rounded, weights, ranges, size, where).run(pixels)


class _Converter:
    def __init__(
        self,
        graph: Graph,
        rounded: dict[str, Node],
        weights: Weights,
        ranges: Ranges,
        size: tuple[int, int],
        where: str,
    ) -> None:
        self.graph = graph
        self.kernels = {
            node.weights["weight"]: layout_weights(node, weights, np.float32)
            for node in rounded.values()
            if "weight_quantization" in node.attributes
        }
        self.ranges = ranges
        self.shapes = infer_shapes(graph, *size)
        self.where = where
        self.tensors: dict[str, Tensor] = {}
        self.scales: dict[np.float32, float] = {}  # before they are rounded to float32; biases are in steps of these
        self.operations: list[Operation] = []

    def run(self, pixels: FakeQuantization) -> Network:
        self.add_map(INPUT, INPUT, self.read_range(INPUT, pixels))
        for node in self.graph.nodes:
            self.convert(node)
        network = Network(self.tensors, tuple(self.operations), (INPUT,), self.graph.outputs)
        check_network(network, self.where)
        return network

    def convert(self, node: Node) -> None:
        op, inputs, attributes = _CONVERTERS.get(node.op, _Converter.refuse)(self, node)
        self.operations.append(Operation(op, inputs, node.name, attributes))

    def refuse(self, node: Node) -> Converted:
        self.fail(node.name, "an operation of a quantised MobileNet", node.op)

    def convert_convolution(self, node: Node) -> Converted:
        activation = self.add_ranged_map(node)
        own = {name: node.attributes.get(name, 1) for name in ("stride", "dilation")}
        padding = node.attributes.get("padding", "SAME")
        inputs = (self.pad(node), *self.add_kernel(node))
        op = {"pointwise_conv2d": "conv2d"}.get(node.op, node.op)
        return op, inputs, activation | own | {"padding": padding if isinstance(padding, str) else "VALID"}

    def convert_sum(self, node: Node) -> Converted:
        return node.op, node.inputs, self.add_ranged_map(node)

    def convert_pool(self, node: Node) -> Converted:
        self.add_map(node.name, node.name, self.tensors[node.inputs[0]])
        slide = sliding_window(node, *self.shapes[node.inputs[0]][1:])
        attributes = {"kernel_size": (slide.kernel_height, slide.kernel_width), "stride": slide.stride}
        return "average_pool2d", node.inputs, {**attributes, "padding": "VALID", "activation": "linear"}

    def convert_resize(self, node: Node) -> Converted:
        inputs = operation_of(node).reads(node)
        self.add_map(node.name, node.name, self.tensors[inputs[0]])
        is_aligned = node.attributes["align_corners"]
        return node.op, inputs, {"align_corners": is_aligned, "half_pixel_centers": not is_aligned}

    def convert_join(self, node: Node) -> Converted:
        widest = max((self.tensors[name] for name in node.inputs), key=lambda tensor: tensor.scale)
        self.add_map(node.name, node.name, widest)
        return node.op, tuple(self.bring_to(name, widest) for name in node.inputs), {"axis": 3}

    def add_ranged_map(self, node: Node) -> dict[str, Any]:
        """Add a node's map with the range of its training; returns the attribute of the clamp that it ends in."""
        if node.name not in self.ranges:
            self.fail(node.name, "a range for its values", f"none for {node.op}")
        self.add_map(node.name, node.name, self.read_range(node.name, self.ranges[node.name]))
        activation = node.attributes.get("activation", "linear")
        if activation not in ACTIVATIONS:
            self.fail(node.name, "relu6, relu or no activation", activation)
        return {"activation": activation}

    def read_range(self, name: str, by: FakeQuantization) -> Tensor:
        """Return a tensor without shape with the scale and zero point of a range, in float64 as the converter's.

        The zero point is computed from the limit that is nearer to 0, where that is more exact.
        """
        if by.num_bits != 8 or by.minimum == by.maximum:
            found = f"{by.minimum:g} to {by.maximum:g} in {by.num_bits}"
            self.fail(name, "a range of more than one number, in 8 bits", found)
        least, most = int(by.narrow_range), 255
        scale = (by.maximum - by.minimum) / (most - least)
        from_minimum, from_maximum = least - by.minimum / scale, most - by.maximum / scale
        is_nearer = least - by.minimum / scale < most + by.maximum / scale
        self.scales[np.float32(scale)] = scale
        zero = math.floor(min(max(from_minimum if is_nearer else from_maximum, least), most) + 0.5)
        return Tensor(name, (), _BYTES, np.array([scale], np.float32), np.array([zero], np.int64))

    def add_map(self, name: str, shaped_as: str, by: Tensor) -> str:
        """Add a map with the shape of a node's values and the scale and zero point of another tensor."""
        channels, height, width = self.shapes[shaped_as]
        self.tensors[name] = dataclasses.replace(by, name=name, shape=(1, height, width, channels))
        return name

    def bring_to(self, name: str, by: Tensor) -> str:
        """Return a map's own name, or that of its values at another scale."""
        own = self.tensors[name]
        if (own.scale, own.zero) == (by.scale, by.zero):
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

    def add_kernel(self, node: Node) -> tuple[str, str]:
        """Add weight and bias of a convolution, and return their names."""
        name = node.weights["weight"]
        by = self.read_range(name, self.ranges[name])
        values, bias = self.kernels[name]
        steps = np.clip(np.rint(values / by.scale) + by.zero, self.ranges[name].narrow_range, 255)
        shape = {"depthwise_conv2d": (1, *values.shape), "pointwise_conv2d": (len(values), 1, 1, values.shape[1])}
        weight = steps.astype(np.uint8).reshape(shape.get(node.op, values.shape))
        self.tensors[name] = dataclasses.replace(by, name=name, shape=weight.shape, values=weight)
        scale = self.scales[self.tensors[node.inputs[0]].scale] * self.scales[by.scale]
        bias_name = f"{node.name}.bias"
        self.tensors[bias_name] = Tensor(
            bias_name, bias.shape, np.dtype(np.int32), np.array([scale], np.float32), np.zeros(1, np.int64),
            values=self.round_bias(node, bias.astype(np.float64) / scale),
        )  # fmt: skip
        return name, bias_name

    def round_bias(self, node: Node, steps: NDArray[np.float64]) -> NDArray[np.int32]:
        """Round to the nearest, halves away from zero."""
        rounded = np.copysign(np.floor(np.abs(steps) + 0.5), steps)
        if not (np.abs(rounded) < 2**31).all():
            self.fail(node.name, "a bias of fewer than 2**31 steps", f"{np.abs(rounded).max():g}")
        return rounded.astype(np.int32)

    def fail(self, name: str, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: {name}: expected {expected}, found {found}")


_CONVERTERS: Mapping[str, Callable[[_Converter, Node], Converted]] = {
    "conv2d": _Converter.convert_convolution,
    "depthwise_conv2d": _Converter.convert_convolution,
    "pointwise_conv2d": _Converter.convert_convolution,
    "add": _Converter.convert_sum,
    "average_pool2d": _Converter.convert_pool,
    "global_average_pool2d": _Converter.convert_pool,
    "resize_bilinear": _Converter.convert_resize,
    "concatenate": _Converter.convert_join,
}
"""By the operation of a graph: what adds its map, and says which operation of integers it is."""
