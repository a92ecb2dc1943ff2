"""The network in TensorFlow, each operation by the entry of one table, and what its converter makes of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.frameworks import hushed, import_framework
from minimobile.comparison.sized_network import SizedNetwork
from minimobile.errors import InputError, UnavailableError
from minimobile.execution.threads import default_thread_count
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
    with hushed("absl"):  # it calls this way of converting deprecated
        converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([_make_function(tensorflow, network)])
        return converter.convert()  # type: ignore[no-any-return]


def prepare_tensorflow(network: SizedNetwork, num_threads: int) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    """Return a function that computes the network's outputs as a graph of TensorFlow's.

    Its number of threads belongs to the process: raises InputError where that is not `num_threads`.
    """
    tensorflow = import_framework("tensorflow")
    own = tensorflow.config.threading.get_intra_op_parallelism_threads() or default_thread_count()
    if own != num_threads:
        raise InputError(f"tensorflow: expected {own} threads, as its process has them, got {num_threads}; take {own}")
    forward = _make_function(tensorflow, network)

    def run(x: NDArray[Any]) -> list[NDArray[Any]]:
        found = forward(tensorflow.constant(np.ascontiguousarray(x.transpose(0, 2, 3, 1))))
        return [values.numpy().transpose(0, 3, 1, 2) for values in found]

    return run


def _make_function(tensorflow: Any, network: SizedNetwork) -> Any:
    n, c, h, w = network.shape
    signature = [tensorflow.TensorSpec((n, h, w, c), tensorflow.float32)]

    @tensorflow.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def forward(x: Any) -> Any:
        return run_tensorflow(network, x)

    return forward.get_concrete_function()


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

    def activate(self, node: Node, x: Any) -> Any:
        """Apply an activation; those that TensorFlow lacks, or has with another slope, as they are defined."""
        function = node.attributes["function"]
        if function == "linear":
            return x
        if function == "leaky_relu":
            return self.nn.leaky_relu(x, 0.01)
        if function == "hardswish":
            return x * self.nn.relu6(x + 3) / 6
        return getattr(self.nn, function)(x)

    def pool(self, node: Node, x: Any) -> Any:
        """Average over windows."""
        slide = sliding_window(node, *self.shapes[node.inputs[0]][1:])
        return self.nn.avg_pool2d(x, (slide.kernel_height, slide.kernel_width), slide.stride, "VALID")


_LAYERS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "pointwise_conv2d"), _Layers.convolve),
    "batch_norm": _Layers.normalize,
    "activation": _Layers.activate,
    "fake_quantize": lambda layers, node, x: layers.fake_quantize(x, node.attributes["quantization"]),
    "add": lambda layers, node, x, y: x + y,
    "concatenate": lambda layers, node, *inputs: layers.tensorflow.concat(inputs, 3),
    "average_pool2d": _Layers.pool,
    "global_average_pool2d": lambda layers, node, x: layers.tensorflow.reduce_mean(x, [1, 2], keepdims=True),
    "resize_bilinear": lambda layers, node, x, like: layers.tensorflow.image.resize(x, layers.shapes[node.name][1:]),
}
