"""A network as the content of a TFLite file: tensors, constants and operators, in bytes or in floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.signatures import TFLITE
from minimobile.formats.tflite.flatbuffer_writer import Fields, Scalar, write_flatbuffer
from minimobile.formats.tflite.flexbuffer import write_numbers
from minimobile.formats.tflite.tflite_detection import OPERATOR, PostProcessOperator
from minimobile.formats.tflite.tflite_schema import ACTIVATIONS, CUSTOM, KINDS, PADDINGS, TENSOR_TYPES
from minimobile.quantized.network import Network, Operation, Tensor

Array = NDArray[Any]
NUMBERS = {kind.name: number for number, kind in KINDS.items()}
_SCHEMA_VERSION = 3
_LARGEST_OLD_CODE = 127
DETECTIONS = ("location", "category", "score", "number of detections")
"""What the results of a detector are called, as in published files."""
_ARG_MAX_OPTIONS = 40  # of BuiltinOptions; the reader needs nothing of it


def write_model(
    network: Network,
    description: str,
    metadata: Mapping[str, bytes] | None = None,
    dtype: str = "float32",
    detection: PostProcessOperator | None = None,
) -> bytes:
    """Return a TFLite file that computes a network; the reader gives the same network back.

    `metadata` are buffers by name. `dtype` "float16" stores constants of float32 in half the bytes; the file itself
    widens them. The signature "serving_default" names input and output. `detection` is the operator behind a detector's
    two outputs, whose four results are then those of the file.
    """
    return _ModelWriter(network, dtype).write(description, metadata or {}, detection)


def check_half(network: Network, where: str) -> None:
    """Raise FormatError for a constant that float16 cannot hold."""
    for tensor in network.tensors.values():
        if tensor.values is None or tensor.dtype != np.float32:
            continue
        largest, limit = float(np.abs(tensor.values).max(initial=0.0)), float(np.finfo(np.float16).max)
        if np.isfinite(largest) and largest > limit:
            raise FormatError(
                f"{where}: {tensor.name}: expected values that float16 can hold (at most {limit:g}), found "
                f"{largest:g}; store it as float32"
            )


class _ModelWriter:
    def __init__(self, network: Network, dtype: str) -> None:
        self.network = network
        self.is_half = dtype == "float16"
        self.tensors: list[Fields] = []
        self.buffers: list[Fields] = [{}]  # the first is that of all tensors without a constant
        self.shared: dict[bytes, int] = {}
        self.numbers: dict[str, int] = {}
        self.operators: list[Fields] = []
        self.codes: dict[tuple[str, int], int] = {}

    def write(self, description: str, metadata: Mapping[str, bytes], detection: PostProcessOperator | None) -> bytes:
        network = self.network
        inputs = np.array([self.number(name) for name in network.inputs], np.int32)
        for operation in network.operations:
            self.add_operation(operation)
        names = network.outputs if detection is None else self.add_post_processing(detection)
        outputs = np.array([self.number(name) for name in names], np.int32)
        graph: Fields = {0: self.tensors, 1: inputs, 2: outputs, 3: self.operators, 4: "main"}
        entries: list[Fields] = [
            {0: name, 1: Scalar("uint32", self.add_buffer(content))} for name, content in metadata.items()
        ]
        ends = [[_name(name, self.numbers[name]) for name in own] for own in (network.inputs, names)]
        signature: Fields = {0: ends[0], 1: ends[1], 2: "serving_default"}
        codes = [_operator_code(kind, version) for kind, version in self.codes]
        model: Fields = {
            0: Scalar("uint32", _SCHEMA_VERSION), 1: codes, 2: [graph], 3: description, 4: self.buffers, 6: entries,
            7: [signature],
        }  # fmt: skip
        return write_flatbuffer(model, TFLITE)

    def number(self, name: str) -> int:
        """Return the number of a tensor of the network, added where it is new."""
        if name not in self.numbers:
            tensor = self.network.tensors[name]
            if self.is_half and tensor.values is not None and tensor.dtype == np.float32:
                self.numbers[name] = self.add_widened(tensor)
            else:
                self.numbers[name] = self.add_tensor(tensor)
        return self.numbers[name]

    def add_tensor(self, tensor: Tensor) -> int:
        buffer = 0 if tensor.values is None else self.add_buffer(_stored_bytes(tensor.values))
        fields: dict[int, Any] = {
            0: np.array(tensor.shape, np.int32), 1: Scalar("int8", TENSOR_TYPES.index(tensor.dtype.name)),
            2: Scalar("uint32", buffer), 3: tensor.name,
        }  # fmt: skip
        if len(tensor.scales):
            quantization: dict[int, Any] = {2: tensor.scales, 3: tensor.zero_points.astype(np.int64)}
            if tensor.axis:
                quantization[6] = Scalar("int32", tensor.axis)
            fields[4] = quantization
        self.tensors.append(fields)
        return len(self.tensors) - 1

    def add_buffer(self, content: bytes) -> int:
        """Return the number of a buffer with this content: equal ones are stored once."""
        if content not in self.shared:
            self.shared[content] = len(self.buffers)
            self.buffers.append({0: np.frombuffer(content, np.uint8)})
        return self.shared[content]

    def add_widened(self, tensor: Tensor) -> int:
        """Add a constant in float16 and the operator that widens it."""
        assert tensor.values is not None
        name = f"{tensor.name}.float16"
        stored = self.add_tensor(
            Tensor(name, tensor.shape, np.dtype(np.float16), values=tensor.values.astype(np.float16))
        )
        widened = self.add_tensor(Tensor(tensor.name, tensor.shape, tensor.dtype))
        self.add_operator("DEQUANTIZE", 3, [stored], widened, {})
        return widened

    def add_constant(self, name: str, values: Array) -> int:
        return self.add_tensor(Tensor(name, values.shape, values.dtype, values=values))

    def add_operation(self, operation: Operation) -> None:
        inputs = [self.number(name) for name in operation.inputs]
        x, out = self.network.tensors[operation.inputs[0]], self.network.tensors[operation.output]
        kind, describe = _OPERATIONS[operation.op]
        options, constant = describe(operation.attributes, out)
        if constant is not None:
            what, values = constant
            inputs.append(self.add_constant(f"{out.name}.{what}", values))
        self.add_operator(kind, _version(kind, x, operation), inputs, self.number(out.name), options)

    def add_post_processing(self, detection: PostProcessOperator) -> tuple[str, ...]:
        """Add the operator that finds boxes; returns the names of its four results."""
        inputs = [self.number(name) for name in self.network.outputs]
        inputs.append(self.add_constant("anchors", detection.anchors))
        shapes = ((1, detection.rows, 4), (1, detection.rows), (1, detection.rows), (1,))
        for name, shape in zip(DETECTIONS, shapes, strict=True):
            self.numbers[name] = self.add_tensor(Tensor(name, shape, np.dtype(np.float32)))
        code = self.codes.setdefault((OPERATOR, 1), len(self.codes))
        self.operators.append(
            {
                0: Scalar("uint32", code),
                1: np.array(inputs, np.int32),
                2: np.array([self.numbers[name] for name in DETECTIONS], np.int32),
                5: np.frombuffer(write_numbers(detection.options), np.uint8),
            }
        )
        return DETECTIONS

    def add_operator(self, kind: str, version: int, inputs: list[int], output: int, options: Mapping[str, Any]) -> None:
        code = self.codes.setdefault((kind, version), len(self.codes))
        schema = KINDS[NUMBERS[kind]]
        fields: dict[int, Any] = {1: np.array(inputs, np.int32), 2: np.array([output], np.int32)}
        if code:
            fields[0] = Scalar("uint32", code)
        if kind == "ARG_MAX":
            fields |= {3: Scalar("uint8", _ARG_MAX_OPTIONS), 4: {0: Scalar("int8", options["output_type"])}}
        elif schema.options:
            own = {
                option.field: Scalar(option.kind, _number(options[option.name], option.choices))
                for option in schema.options
                if option.name in options
            }
            fields |= {3: Scalar("uint8", schema.options_type), 4: own}
        self.operators.append(fields)


def _name(name: str, number: int) -> Fields:
    """Return an entry of a signature: what it calls a tensor."""
    return {0: name, 1: Scalar("uint32", number)}


def _stored_bytes(values: Array) -> bytes:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()


def _number(value: Any, choices: tuple[str, ...]) -> float:
    """Return an option's number; choices are known by name."""
    return choices.index(value) if choices else value


def _operator_code(kind: str, version: int) -> Fields:
    if kind == OPERATOR:
        return {0: Scalar("int8", CUSTOM), 1: OPERATOR, 3: Scalar("int32", CUSTOM)}
    number = NUMBERS[kind]
    code = {0: Scalar("int8", min(number, _LARGEST_OLD_CODE)), 3: Scalar("int32", number)}
    return code if version == 1 else {**code, 2: Scalar("int32", version)}


def _version(kind: str, x: Tensor, operation: Operation) -> int:
    """Return the least version of an operator that old runtimes need to know. Source: LiteRT, `op_version.cc`."""
    if kind == "RESIZE_BILINEAR":
        return 3 if operation.attributes["half_pixel_centers"] else (2 if x.dtype == np.int8 else 1)
    if kind == "QUANTIZE":
        return 1 if x.dtype == np.float32 else 2
    if kind == "DEPTHWISE_CONV_2D" and x.dtype != np.int8:
        return 1 if operation.attributes["dilation"] == 1 else 2
    return _SIGNED_VERSIONS.get(kind, 2) if x.dtype == np.int8 else 1


_SIGNED_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1}

Described = tuple[Mapping[str, Any], tuple[str, Array] | None]


def _activated(attributes: Mapping[str, Any]) -> dict[str, Any]:
    function = attributes.get("activation", "linear")
    assert function == "linear" or function in ACTIVATIONS, function
    return {"activation": "none" if function == "linear" else function}


def _strided(attributes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    sizes = {f"{name}_{axis}": attributes[name] for name in names for axis in "wh"}
    assert attributes["padding"] in PADDINGS
    return {**sizes, "padding": attributes["padding"], **_activated(attributes)}


def _convolution(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return _strided(attributes, "stride", "dilation"), None


def _depthwise(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {**_strided(attributes, "stride", "dilation"), "depth_multiplier": 1}, None


def _dense(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {**_activated(attributes), "keep_num_dims": bool(attributes.get("keep_num_dims", False))}, None


def _pool(attributes: Mapping[str, Any], out: Tensor) -> Described:
    height, width = attributes["kernel_size"]
    return {**_strided(attributes, "stride"), "filter_h": height, "filter_w": width}, None


def _sum(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return _activated(attributes), None


def _mean(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {"keep_dims": attributes["keep_dims"]}, ("axes", np.array(attributes["axes"], np.int32))


def _reshape(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {}, ("shape", np.array([-1, *out.shape[1:]], np.int32))  # -1: any number of pictures


def _softmax(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {"beta": attributes["beta"]}, None


def _nothing(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {}, None


def _concatenation(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {"axis": attributes["axis"], **_activated(attributes)}, None


def _resize(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return dict(attributes), ("size", np.array(out.shape[1:3], np.int32))


def _pad(attributes: Mapping[str, Any], out: Tensor) -> Described:
    return {}, ("paddings", np.array(attributes["padding"], np.int32))


def _argmax(attributes: Mapping[str, Any], out: Tensor) -> Described:
    axis = ("axis", np.array(attributes["axis"], np.int32))
    return {"output_type": TENSOR_TYPES.index(out.dtype.name)}, axis


_OPERATIONS: Mapping[str, tuple[str, Callable[[Mapping[str, Any], Tensor], Described]]] = {
    "conv2d": ("CONV_2D", _convolution),
    "depthwise_conv2d": ("DEPTHWISE_CONV_2D", _depthwise),
    "fully_connected": ("FULLY_CONNECTED", _dense),
    "add": ("ADD", _sum),
    "average_pool2d": ("AVERAGE_POOL_2D", _pool),
    "mean": ("MEAN", _mean),
    "reshape": ("RESHAPE", _reshape),
    "softmax": ("SOFTMAX", _softmax),
    "logistic": ("LOGISTIC", _nothing),
    "concatenate": ("CONCATENATION", _concatenation),
    "resize_bilinear": ("RESIZE_BILINEAR", _resize),
    "quantize": ("QUANTIZE", _nothing),
    "dequantize": ("DEQUANTIZE", _nothing),
    "pad": ("PAD", _pad),
    "argmax": ("ARG_MAX", _argmax),
}
"""Our word: TFLite's, and what says its options and the constant that it reads besides."""
