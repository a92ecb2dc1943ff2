"""Quantised TFLite files of one operation, or of a whole network, and LiteRT's results for every tensor of a file."""

from __future__ import annotations

import warnings
from typing import Any

import frameworks
import numpy as np
from flatbuffer_files import TFLiteWriter
from numpy.typing import NDArray

from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.tflite.tflite_schema import TENSOR_TYPES

Array = NDArray[Any]


def start(shape: tuple[int, ...], dtype: str, scale: float = 0.02, zero: int = 0) -> TFLiteWriter:
    """Return a writer whose input is quantised; float32 has no scale."""
    writer = TFLiteWriter(shape[1:3] if len(shape) == 4 else (1, 1))
    writer.tensors.clear()
    quantization = {} if dtype == "float32" else {"scales": scale, "zeros": zero}
    writer.add_tensor("picture", shape, None, dtype, **quantization)
    return writer


def as_bytes(dtype: str, scale: float = 0.02, zero: int = 0) -> dict[str, Any]:
    """Return what `add_operator` takes as the description of its output."""
    return {"dtype": dtype, "scales": scale, "zeros": zero}


def random_bytes(seed: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Return bytes of all values; some seeds give only the largest or the smallest."""
    rng, limits = np.random.default_rng(seed), np.iinfo(dtype)
    if seed % 7 == 0:
        return np.full(shape, (limits.min, limits.max)[seed % 2], dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def run_litert(content: bytes, x: Array, resolver: str = "BUILTIN_REF") -> dict[str, Array]:
    """Return every tensor that LiteRT computes, by name."""
    litert = frameworks.litert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = litert.Interpreter(
            model_content=content,
            experimental_op_resolver_type=getattr(litert.OpResolverType, resolver),
            experimental_preserve_all_tensors=True,
            num_threads=1,
        )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = {}
    for tensor in interpreter.get_tensor_details():
        try:
            found[tensor["name"]] = interpreter.get_tensor(tensor["index"]).copy()
        except ValueError:  # what a delegate or another operator keeps to itself
            continue
    return found


def write_quantized(
    layers: list[Layer],
    size: tuple[int, int] = (32, 32),
    dtype: str = "uint8",
    *,
    has_float_ends: bool = False,
    is_fused: bool = True,
) -> TFLiteWriter:
    """Return the quantised model of spelled layers without batch norm: scales from the layers' kinds, not from data.

    uint8 per tensor, int8 per channel. `has_float_ends`: the file itself quantises its input and its output back.
    Without `is_fused` operators have no activation: that bytes end at 0 and 6 is the clamp.
    """
    low = int(np.iinfo(dtype).min)
    weight = next(layer for layer in layers if layer.op in ("conv2d", "depthwise_conv2d")).arrays["weight"]
    shape = (1, *size, weight.shape[1])
    kinds = {
        "picture": (1 / 128, 128 + low),
        "relu6": (6 / 255, low),
        "relu": (6 / 255, low),
        "linear": (0.1, 128 + low),
    }
    writer = start(shape, "float32" if has_float_ends else dtype, *kinds["picture"])
    first = writer.inputs[0]
    if has_float_ends:
        first = writer.add_operator("QUANTIZE", [first], shape, "stored", output=as_bytes(dtype, *kinds["picture"]))
    tensors, scales, shapes = {PICTURE: first}, {PICTURE: kinds["picture"]}, {PICTURE: shape}
    activations = {layer.inputs[0]: layer for layer in layers if layer.op == "activation"}
    for layer in layers:
        source = layer.inputs[0]
        inputs = [tensors[name] for name in layer.inputs]
        kind, options, shape, own = layer.op, {}, shapes[source], scales[source]
        if layer.op in ("conv2d", "depthwise_conv2d", "dense"):
            follower = activations.get(layer.name)
            function = follower.attributes["function"] if follower else "none"
            own = kinds.get(function, kinds["linear"])
            options["activation"] = function if function in kinds and is_fused else "none"
            inputs += _add_weights(writer, layer, dtype, scales[source][0])
            kind = {"conv2d": "CONV_2D", "depthwise_conv2d": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}[layer.op]
            if layer.op == "dense":
                shape = (1, layer.arrays["weight"].shape[0])
            else:
                stride = layer.attributes["stride"]
                options |= {
                    f"{name}_{axis}": layer.attributes[name] for name in ("stride", "dilation") for axis in "hw"
                }
                options["padding"] = "SAME"
                shape = (1, *(-(-side // stride) for side in shape[1:3]), layer.arrays["weight"].shape[0])
        elif layer.op == "activation" and layer.attributes["function"] in kinds:
            tensors[layer.name], scales[layer.name], shapes[layer.name] = inputs[0], own, shape
            continue
        elif layer.op == "activation":
            kind = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}[layer.attributes["function"]]
            options, own = ({"beta": 1.0} if kind == "SOFTMAX" else {}), (1 / 256, low)
        elif layer.op == "average_pool2d":
            kind = "AVERAGE_POOL_2D"
            options = {"filter_h": shape[1], "filter_w": shape[2], "padding": "VALID"}
            shape = (1, 1, 1, shape[3])
        elif layer.op == "add":
            kind, own = "ADD", (0.15, 128 + low)
        elif layer.op == "concatenate":
            kind, options = "CONCATENATION", {"axis": 3}
            shape = (*shape[:3], sum(shapes[name][3] for name in layer.inputs))
        elif layer.op == "resize_bilinear":
            kind, options = "RESIZE_BILINEAR", {"align_corners": True}
            sides = layer.attributes.get("size", size)
            inputs = [inputs[0], writer.add_constant(f"{layer.name}/size", np.array(sides, np.int32))]
            shape = (1, *sides, shape[3])
        elif layer.op == "argmax":
            kind, shape = "ARG_MAX", shape[:3]
            inputs.append(writer.add_constant(f"{layer.name}/axis", np.array(3, np.int32)))
        else:
            kind, shape = "RESHAPE", (1, int(np.prod(shape)))
            inputs.append(writer.add_constant(f"{layer.name}/shape", np.array(shape, np.int32)))
        output = {"dtype": "int64"} if kind == "ARG_MAX" else as_bytes(dtype, *own)
        tensors[layer.name] = writer.add_operator(kind, inputs, shape, layer.tensor, output=output, **options)
        if kind == "ARG_MAX":
            name_result_type(writer, "int64")
        scales[layer.name], shapes[layer.name] = own, shape
    writer.outputs = [tensors[layers[-1].name]]
    if has_float_ends:
        writer.outputs = [writer.add_operator("DEQUANTIZE", writer.outputs, shape, "numbers")]
    return writer


def name_result_type(writer: TFLiteWriter, dtype: str) -> None:
    """Give the last operator, an ARG_MAX, the option that LiteRT needs and our reader does not."""
    writer.operators[-1] |= {3: ("uint8", 40), 4: {0: ("int8", TENSOR_TYPES.index(dtype))}}


def _add_weights(writer: TFLiteWriter, layer: Layer, dtype: str, scale: float) -> list[int]:
    """Append a layer's weight, in steps of its largest value, and its bias."""
    order = {"conv2d": (0, 2, 3, 1), "depthwise_conv2d": (1, 2, 3, 0), "dense": (0, 1)}[layer.op]
    weight = layer.arrays["weight"].transpose(order)
    axis = 3 if layer.op == "depthwise_conv2d" else 0
    if dtype == "int8":
        others = tuple(other for other in range(weight.ndim) if other != axis)
        scales = np.maximum(np.abs(weight).max(others, keepdims=True) / 127, 1e-6).astype(np.float32)
        zero = 0
    else:
        scales, zero = (np.abs(weight).max() / 127).astype(np.float32).reshape([1] * weight.ndim), 128
    stored = np.rint(weight / scales + zero).astype(dtype)
    steps = np.float32(scale) * scales.reshape(-1)
    bias = np.rint(layer.arrays["bias"] / steps).astype(np.int32)
    return [
        writer.add_constant(
            f"{layer.name}/weight", stored, scales=scales.reshape(-1), zeros=zero, axis=axis if scales.size > 1 else 0
        ),
        writer.add_constant(f"{layer.name}/bias", bias, scales=steps, zeros=0),
    ]
