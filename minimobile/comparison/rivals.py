"""The same network in other runtimes, to compare speed and values: ONNX Runtime, OpenVINO, LiteRT, PyTorch, TensorFlow.

Each gets the same weights and geometry. A runtime is imported when it is asked for, and never otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import UnavailableError
from minimobile.networks.fake_quantization import FakeQuantization
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.networks.passes import Weights, fold_batch_norm, keep_needed, layout_weights
from minimobile.networks.shapes import CONVOLUTIONS, MapShape, infer_shapes, sliding_window

Shape: TypeAlias = tuple[int, int, int, int]
Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert", "torch": "torch"}


@dataclass(frozen=True)
class Network:
    """A graph at one input shape (N, C, H, W). For comparisons of speed it is folded, and its first output counts."""

    graph: Graph
    weights: Weights
    shape: Shape

    @property
    def shapes(self) -> dict[str, MapShape]:
        """Map sizes by node name."""
        return infer_shapes(self.graph, *self.shape[2:])

    def convolution(self, node: Node) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
        """Return weight (C_out, C_in / groups, K_h, K_w), bias and groups of a convolution node."""
        weight, bias = layout_weights(node, self.weights, np.float32)
        if node.op == "depthwise_conv2d":
            return np.ascontiguousarray(weight.transpose(2, 0, 1)[:, None]), bias, weight.shape[2]
        if node.op == "conv2d":
            return np.ascontiguousarray(weight.transpose(0, 3, 1, 2)), bias, 1
        return weight[:, :, None, None], bias, 1

    def normalization(self, node: Node) -> list[NDArray[np.float32]]:
        """Return scale, shift, mean and variance of a batch norm that is not folded."""
        return [self.weights[node.weights[role]].astype(np.float32) for role in ("weight", "bias", "mean", "variance")]

    def pads(self, node: Node, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the padding (top, left, bottom, right) of a convolution node."""
        slide = sliding_window(node, height, width)
        bottom, right = (
            max(0, (outputs - 1) * slide.stride + (kernel - 1) * slide.dilation + 1 - size - before)
            for outputs, kernel, size, before in (
                (slide.out_height, slide.kernel_height, height, slide.pad_top),
                (slide.out_width, slide.kernel_width, width, slide.pad_left),
            )
        )
        return slide.pad_top, slide.pad_left, bottom, right


def fold(graph: Graph, weights: Weights, shape: Shape) -> Network:
    """Return what is compared: the first output of the graph, with batch norm folded."""
    return Network(fold_batch_norm(keep_needed(graph, graph.outputs[:1])), weights, shape)


def prepare(name: str, graph: Graph, weights: Weights, shape: Shape, num_threads: int) -> Run:
    """Return a function that runs the graph's first output on a float32 (N, C, H, W) array in the named runtime.

    `name` is a key of `PACKAGES`, or "openvino-bf16".
    """
    package = PACKAGES[name.removesuffix("-bf16")]
    try:
        import_module(package)
    except ImportError:
        raise UnavailableError(
            f"{name}: expected the package {package}, which is not installed; pip install 'minimobile[bench]'"
        ) from None
    network = fold(graph, weights, shape)
    builders: Mapping[str, Callable[[Network, int], Run]] = {
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "openvino-bf16": _openvino_bf16,
        "litert": _litert,
        "torch": _torch,
    }
    return builders[name](network, num_threads)


def _onnxruntime(network: Network, num_threads: int) -> Run:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = runtime.InferenceSession(write_onnx(network), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {INPUT: x})[0]


def _openvino(network: Network, num_threads: int, precision: str = "f32") -> Run:
    core = import_module("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(write_onnx(network)), "CPU", settings).create_infer_request()
    return lambda x: next(iter(request.infer({0: x}).values()))


def _openvino_bf16(network: Network, num_threads: int) -> Run:
    return _openvino(network, num_threads, "bf16")


def write_onnx(network: Network) -> bytes:
    """Return the network, with all outputs of its graph, as an ONNX model (operator set 17)."""
    onnx = import_module("onnx")
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    shapes, nodes = network.shapes, []
    constants = [array(np.float32(0), "zero"), array(np.float32(6), "six")]
    for node in network.graph.nodes:
        x, attributes = node.inputs[0], {}
        inputs = list(node.inputs)
        if node.op in CONVOLUTIONS:
            weight, bias, groups = network.convolution(node)
            constants += [array(weight, f"{node.name}.weight"), array(bias, f"{node.name}.bias")]
            inputs = [x, f"{node.name}.weight", f"{node.name}.bias"]
            operator, attributes = "Conv", {"kernel_shape": list(weight.shape[2:]), "group": groups}
            if node.op != "pointwise_conv2d":
                attributes["strides"] = [node.attributes["stride"]] * 2
                attributes["dilations"] = [node.attributes["dilation"]] * 2
                attributes["pads"] = list(network.pads(node, *shapes[x][1:]))
        elif node.op == "activation" and node.attributes["function"] == "relu6":
            operator, inputs = "Clip", [x, "zero", "six"]
        elif node.op == "batch_norm":
            names = [f"{node.name}.{role}" for role in ("scale", "shift", "mean", "variance")]
            constants += map(array, network.normalization(node), names)
            operator, inputs, attributes = "BatchNormalization", [x, *names], {"epsilon": node.attributes["epsilon"]}
        elif node.op == "average_pool2d":
            slide = sliding_window(node, *shapes[x][1:])
            operator = "AveragePool"
            attributes = {"kernel_shape": [slide.kernel_height, slide.kernel_width], "strides": [slide.stride] * 2}
        elif node.op == "resize_bilinear":  # in MobileNets always from 1x1
            constants.append(array(np.array([network.shape[0], *shapes[node.name]], np.int64), f"{node.name}.shape"))
            operator, inputs = "Expand", [x, f"{node.name}.shape"]
        else:
            operator = _onnx_operator(node)
            attributes = {"axis": 1} if operator == "Concat" else {}
        nodes.append(helper.make_node(operator, inputs, [node.name], **attributes))
    float32 = onnx.TensorProto.FLOAT
    outputs = {name: [network.shape[0], *shapes[name]] for name in network.graph.outputs}
    graph = helper.make_graph(
        nodes,
        "minimobile",
        [helper.make_tensor_value_info(INPUT, float32, list(network.shape))],
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()  # type: ignore[no-any-return]


def _onnx_operator(node: Node) -> str:
    operators = {"add": "Add", "global_average_pool2d": "GlobalAveragePool", "concatenate": "Concat", "relu": "Relu"}
    name = node.attributes["function"] if node.op == "activation" else node.op
    if name not in operators:
        raise UnavailableError(f"{node.name}: expected an operation that can be written for ONNX, got {name}")
    return operators[name]


def _torch(network: Network, num_threads: int) -> Run:
    torch = import_module("torch")
    functional = torch.nn.functional
    torch.set_num_threads(num_threads)
    shapes, tensors = network.shapes, {}
    for node in network.graph.nodes:
        if node.op in CONVOLUTIONS:
            weight, bias, groups = network.convolution(node)
            weight = torch.from_numpy(weight.copy()).contiguous(memory_format=torch.channels_last)
            tensors[node.name] = (weight, torch.from_numpy(bias), groups)

    def apply(node: Node, inputs: list[Any]) -> Any:
        x = inputs[0]
        if node.op in CONVOLUTIONS:
            weight, bias, groups = tensors[node.name]
            if node.op == "pointwise_conv2d":
                return functional.conv2d(x, weight, bias)
            top, left, bottom, right = network.pads(node, *shapes[node.inputs[0]][1:])
            if (top, left) != (bottom, right):
                x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
            stride, dilation = node.attributes["stride"], node.attributes["dilation"]
            return functional.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
        if node.op == "activation":
            return getattr(functional, node.attributes["function"])(x)
        if node.op == "global_average_pool2d":
            return functional.adaptive_avg_pool2d(x, 1)
        if node.op == "resize_bilinear":
            return functional.interpolate(x, inputs[1].shape[2:], mode="bilinear", align_corners=True)
        return x + inputs[1] if node.op == "add" else torch.cat(inputs, 1)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            values = {INPUT: torch.from_numpy(x).contiguous(memory_format=torch.channels_last)}
            for node in network.graph.nodes:
                values[node.name] = apply(node, [values[name] for name in node.inputs])
            return values[network.graph.outputs[0]].numpy()  # type: ignore[no-any-return]

    return run


def _litert(network: Network, num_threads: int) -> Run:
    """Run with LiteRT's default kernels (XNNPACK). LiteRT's layout is (N, H, W, C)."""
    interpreter_module = import_module("ai_edge_litert.interpreter")
    interpreter = interpreter_module.Interpreter(model_content=write_tflite(network), num_threads=num_threads)
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(first, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        return interpreter.get_tensor(last).transpose(0, 3, 1, 2)  # type: ignore[no-any-return]

    return run


def open_tflite(path: str | Path, num_threads: int) -> Run:
    """Return a function that runs a TFLite file in LiteRT's default kernels, from input to output as they are."""
    try:
        interpreter_module = import_module("ai_edge_litert.interpreter")
    except ImportError:
        raise UnavailableError(
            "litert: expected the package ai_edge_litert, which is not installed; pip install 'minimobile[bench]'"
        ) from None
    interpreter = interpreter_module.Interpreter(str(path), num_threads=num_threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x: NDArray[Any]) -> NDArray[Any]:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])  # type: ignore[no-any-return]

    return run


def write_tflite(network: Network) -> bytes:
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


def run_tensorflow(network: Network, x: Any) -> list[Any]:
    """Compute all outputs of the network's graph with TensorFlow's operations. Shapes: x and results (N, H, W, C)."""
    tensorflow = import_module("tensorflow")
    nn, shapes = tensorflow.nn, network.shapes

    def fake_quantize(x: Any, quantization: FakeQuantization) -> Any:
        return tensorflow.quantization.fake_quant_with_min_max_args(x, *quantization)

    def convolve(node: Node, x: Any) -> Any:
        quantization = node.attributes.get("weight_quantization")
        attributes = {name: value for name, value in node.attributes.items() if name != "weight_quantization"}
        weight, bias, _ = network.convolution(dataclasses.replace(node, attributes=attributes))
        weight = weight.transpose((2, 3, 0, 1) if node.op == "depthwise_conv2d" else (2, 3, 1, 0))
        weight = weight if quantization is None else fake_quantize(weight, quantization)
        stride, dilation = node.attributes.get("stride", 1), node.attributes.get("dilation", 1)
        padding: Any = node.attributes.get("padding", "VALID")
        if padding not in ("SAME", "VALID"):
            top, left, bottom, right = network.pads(node, *shapes[node.inputs[0]][1:])
            padding = [[0, 0], [top, bottom], [left, right], [0, 0]]
        if node.op == "depthwise_conv2d":
            y = nn.depthwise_conv2d(x, weight, [1, stride, stride, 1], padding, dilations=[dilation, dilation])
        else:
            y = nn.conv2d(x, weight, stride, padding)
        return nn.bias_add(y, bias)

    def apply(node: Node, x: Any, *others: Any) -> Any:
        if node.op in CONVOLUTIONS:
            return convolve(node, x)
        if node.op == "batch_norm":
            scale, shift, mean, variance = network.normalization(node)
            return nn.batch_normalization(x, mean, variance, shift, scale, node.attributes["epsilon"])
        if node.op == "activation":
            return getattr(nn, node.attributes["function"])(x)
        if node.op == "fake_quantize":
            return fake_quantize(x, node.attributes["quantization"])
        if node.op == "global_average_pool2d":
            return tensorflow.reduce_mean(x, [1, 2], keepdims=True)
        if node.op == "average_pool2d":
            slide = sliding_window(node, *shapes[node.inputs[0]][1:])
            return nn.avg_pool2d(x, (slide.kernel_height, slide.kernel_width), slide.stride, "VALID")
        if node.op == "resize_bilinear":
            return tensorflow.image.resize(x, shapes[node.name][1:])
        return x + others[0] if node.op == "add" else tensorflow.concat([x, *others], 3)

    values = {INPUT: x}
    for node in network.graph.nodes:
        values[node.name] = apply(node, *(values[name] for name in node.inputs))
    return [values[name] for name in network.graph.outputs]
