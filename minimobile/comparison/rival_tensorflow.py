"""The network in TensorFlow, each operation by the entry of one table, and what its converter makes of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from minimobile.comparison.sized_network import SizedNetwork
from minimobile.errors import UnavailableError
from minimobile.networks.graph import INPUT, Node
from minimobile.operations.fake_quantization import FakeQuantization
from minimobile.operations.shapes import sliding_window
from minimobile.operations.table import CONVOLUTIONS


def write_tflite(network: SizedNetwork) -> bytes:
    """Return the network as a TensorFlow Lite model, converted by TensorFlow."""
    try:
        tensorflow = import_module("tensorflow")
    except ImportError:
        raise UnavailableError(
            "litert: expected TensorFlow beside it, which writes the .tflite file; pip install tensorflow-cpu"
        ) from None
    n, c, h, w = network.shape

    signature = [tensorflow.TensorSpec((n, h, w, c), tensorflow.float32)]

    @tensorflow.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def forward(x: Any) -> Any:
        return run_tensorflow(network, x)

    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()])
    return converter.convert()  # type: ignore[no-any-return]


def run_tensorflow(network: SizedNetwork, x: Any) -> list[Any]:
    """Compute all outputs of the network's graph with TensorFlow's operations. Shapes: x and results (N, H, W, C)."""
    layers, values = _Layers(network), {INPUT: x}
    for node in network.graph.nodes:
        values[node.name] = _LAYERS[node.op](layers, node, *(values[name] for name in node.inputs))
    return [values[name] for name in network.graph.outputs]


class _Layers:
    """What the entries of the table work with: TensorFlow, the network, and its maps' sizes."""

    def __init__(self, network: SizedNetwork) -> None:
        self.tensorflow = import_module("tensorflow")
        self.nn, self.network, self.shapes = self.tensorflow.nn, network, network.shapes

    def fake_quantize(self, x: Any, quantization: FakeQuantization) -> Any:
        """Round as training for quantisation does."""
        return self.tensorflow.quantization.fake_quant_with_min_max_args(x, *quantization)

    def convolve(self, node: Node, x: Any) -> Any:
        """Compute a convolution; "SAME" and "VALID" are left to TensorFlow, other padding is given in pixels."""
        is_depthwise = CONVOLUTIONS[node.op].is_by_channel
        quantization = node.attributes.get("weight_quantization")
        attributes = {name: value for name, value in node.attributes.items() if name != "weight_quantization"}
        weight, bias, _ = self.network.convolution(dataclasses.replace(node, attributes=attributes))
        weight = weight.transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
        kernel = weight if quantization is None else self.fake_quantize(weight, quantization)
        stride, dilation = node.attributes.get("stride", 1), node.attributes.get("dilation", 1)
        padding: Any = node.attributes.get("padding", "VALID")
        if padding not in ("SAME", "VALID"):
            top, left, bottom, right = self.network.pads(node, *self.shapes[node.inputs[0]][1:])
            padding = [[0, 0], [top, bottom], [left, right], [0, 0]]
        if is_depthwise:
            strides = [1, stride, stride, 1]
            y = self.nn.depthwise_conv2d(x, kernel, strides, padding, dilations=[dilation, dilation])
        else:
            y = self.nn.conv2d(x, kernel, stride, padding)
        return self.nn.bias_add(y, bias)

    def normalize(self, node: Node, x: Any) -> Any:
        """Compute a batch norm."""
        scale, shift, mean, variance = self.network.normalization(node)
        return self.nn.batch_normalization(x, mean, variance, shift, scale, node.attributes["epsilon"])

    def pool(self, node: Node, x: Any) -> Any:
        """Average over windows."""
        slide = sliding_window(node, *self.shapes[node.inputs[0]][1:])
        return self.nn.avg_pool2d(x, (slide.kernel_height, slide.kernel_width), slide.stride, "VALID")


_LAYERS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "pointwise_conv2d"), _Layers.convolve),
    "batch_norm": _Layers.normalize,
    "activation": lambda layers, node, x: getattr(layers.nn, node.attributes["function"])(x),
    "fake_quantize": lambda layers, node, x: layers.fake_quantize(x, node.attributes["quantization"]),
    "add": lambda layers, node, x, y: x + y,
    "concatenate": lambda layers, node, *inputs: layers.tensorflow.concat(inputs, 3),
    "average_pool2d": _Layers.pool,
    "global_average_pool2d": lambda layers, node, x: layers.tensorflow.reduce_mean(x, [1, 2], keepdims=True),
    "resize_bilinear": lambda layers, node, x, like: layers.tensorflow.image.resize(x, layers.shapes[node.name][1:]),
}
