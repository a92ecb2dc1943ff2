"""A minimal writer of FlatBuffers and of TFLite models, written from the format's description for tests alone."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.tflite.tflite_schema import ACTIVATIONS, KINDS, TENSOR_TYPES

CODES = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
}
NUMBERS = {kind.name: number for number, kind in KINDS.items()}

Fields = dict[int, Any]
"""Number of a field -> (kind, number), text, array (a vector), dict (a table) or list of dicts (tables)."""


def write_flatbuffer(root: Fields, identifier: bytes = b"TFL3") -> bytes:
    """Return a buffer in which every offset leads forwards, parents before children."""
    out = bytearray(4) + identifier
    _patch(out, 0, _write_table(out, root))
    return bytes(out)


def _patch(out: bytearray, place: int, target: int) -> None:
    struct.pack_into("<I", out, place, target - place)


def _align(out: bytearray, size: int, ahead: int = 0) -> None:
    out.extend(bytes(-(len(out) + ahead) % size))


def _write_table(out: bytearray, fields: Fields) -> int:
    count = max(fields, default=-1) + 1
    offsets, size = [0] * count, 4
    for field, value in fields.items():
        width = struct.calcsize(CODES[value[0]]) if isinstance(value, tuple) else 4
        size += -size % width
        offsets[field], size = size, size + width
    _align(out, 8, 4 + 2 * count)
    vtable = len(out)
    out += struct.pack(f"<{2 + count}H", 4 + 2 * count, size, *offsets)
    table = len(out)
    out += struct.pack("<i", table - vtable) + bytes(size - 4)
    for field, value in fields.items():
        place = table + offsets[field]
        if isinstance(value, tuple):
            struct.pack_into(f"<{CODES[value[0]]}", out, place, value[1])
        else:
            _patch(out, place, _write_child(out, value))
    return table


def _write_child(out: bytearray, value: Any) -> int:
    if isinstance(value, dict):
        return _write_table(out, value)
    if isinstance(value, str):
        _align(out, 4)
        start = len(out)
        content = value.encode()
        out += struct.pack("<I", len(content)) + content + b"\0"
        return start
    if isinstance(value, np.ndarray):
        _align(out, 16, 4)
        start = len(out)
        out += struct.pack("<I", value.size) + value.tobytes()
        return start
    _align(out, 4)
    start = len(out)
    out += struct.pack("<I", len(value)) + bytes(4 * len(value))
    for index, table in enumerate(value):
        _patch(out, start + 4 + 4 * index, _write_table(out, table))
    return start


class TFLiteWriter:
    """A model under construction: tensors, buffers and operators as fields that a test may still spoil."""

    def __init__(self, size: tuple[int, int] = (32, 32), channels: int = 3) -> None:
        self.tensors: list[Fields] = []
        self.buffers: list[Fields] = [{}]
        self.operators: list[Fields] = []
        self.codes: list[Fields] = []
        self.inputs = [self.add_tensor("picture", (1, *size, channels))]
        self.outputs: list[int] = []
        self.root: Fields = {}

    def add_tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        values: Any = None,
        dtype: str = "float32",
        scales: Any = None,
        zeros: Any = 0,
        axis: int = 0,
    ) -> int:
        """Append a tensor; with `scales`, one or one per index of `axis`, it is quantised."""
        buffer = 0
        if values is not None:
            buffer = len(self.buffers)
            self.buffers.append({0: np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)})
        sizes = np.array(shape, np.int32)
        number = TENSOR_TYPES.index(dtype)
        fields: Fields = {0: sizes, 1: ("int8", number), 2: ("uint32", buffer), 3: name}
        if scales is not None:
            scales = np.atleast_1d(np.asarray(scales, np.float32))
            zeros = np.broadcast_to(np.asarray(zeros, np.int64), scales.shape)
            fields[4] = {2: scales, 3: np.ascontiguousarray(zeros), 6: ("int32", axis)}
        self.tensors.append(fields)
        return len(self.tensors) - 1

    def add_constant(self, name: str, values: Any, **quantization: Any) -> int:
        values = np.asarray(values)
        return self.add_tensor(name, values.shape, values, str(values.dtype), **quantization)

    def add_operator(
        self,
        kind: str,
        inputs: list[int],
        shape: tuple[int, ...],
        name: str = "",
        *,
        output: dict[str, Any] | None = None,
        **options: Any,
    ) -> int:
        """Append an operator with one output, of float32 or as `output` says (type, scales, zeros).

        Options that are not given have their least values.
        """
        number = NUMBERS[kind]
        schema = KINDS[number]
        fields = {}
        for option in schema.options:
            value = options.get(option.name, option.default or option.minimum or 0)
            fields[option.field] = (option.kind, option.choices.index(value) if isinstance(value, str) else value)
        code = len(self.codes)
        self.codes.append({0: ("int8", min(number, 127)), 3: ("int32", number)})
        result = self.add_tensor(name or f"op {len(self.operators)}", shape, **(output or {}))
        operator: Fields = {
            0: ("uint32", code),
            1: np.array(inputs, np.int32),
            2: np.array([result], np.int32),
        }
        if schema.options:
            operator |= {3: ("uint8", schema.options_type), 4: fields}
        self.operators.append(operator)
        return result

    def write(self, **root: Any) -> bytes:
        graph = {
            0: self.tensors,
            1: np.array(self.inputs, np.int32),
            2: np.array(self.outputs or [len(self.tensors) - 1], np.int32),
            3: self.operators,
        }
        model = {0: ("uint32", 3), 1: self.codes, 2: [graph], 3: "a test", 4: self.buffers}
        return write_flatbuffer({**model, **self.root})


def write_layers(layers: list[Layer], *, half: bool = False, mean: bool = False) -> TFLiteWriter:
    """Return the TFLite model of spelled layers without batch norm; activations join the layer before them.

    `half`: weights in float16, widened by the file. `mean`: MEAN in place of AVERAGE_POOL_2D. Sizes of maps are those
    of single pixels: nobody runs these files.
    """
    first = next(layer for layer in layers if layer.op in ("conv2d", "depthwise_conv2d"))
    writer = TFLiteWriter(channels=first.arrays["weight"].shape[1])
    tensors = {PICTURE: writer.inputs[0]}
    channels = {PICTURE: first.arrays["weight"].shape[1]}

    def add_array(layer: Layer, role: str, values: Any) -> int:
        values = np.asarray(values, np.float16 if half else np.float32)
        number = writer.add_constant(f"{layer.name}/{role}", values)
        return writer.add_operator("DEQUANTIZE", [number], values.shape) if half else number

    def add_integers(layer: Layer, role: str, values: Any) -> int:
        return writer.add_constant(f"{layer.name}/{role}", np.array(values, np.int32))

    for layer in layers:
        inputs = [tensors[name] for name in layer.inputs]
        count = channels[layer.inputs[0]]
        attributes = layer.attributes
        kind, options = layer.op, {}
        if layer.op in ("conv2d", "depthwise_conv2d", "dense"):
            weight = layer.arrays["weight"]
            count = weight.shape[0]
            order = {"conv2d": (0, 2, 3, 1), "depthwise_conv2d": (1, 2, 3, 0), "dense": (0, 1)}[layer.op]
            inputs.append(add_array(layer, "weight", weight.transpose(order)))
            inputs.append(add_array(layer, "bias", layer.arrays["bias"]))
            kind = {"conv2d": "CONV_2D", "depthwise_conv2d": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}[layer.op]
            if layer.op != "dense":
                options = {f"stride_{axis}": attributes["stride"] for axis in "wh"}
                options |= {f"dilation_{axis}": attributes["dilation"] for axis in "wh"}
                options["padding"] = attributes["padding"]
        elif (
            layer.op == "activation" and (field := _activation_field(writer)) and attributes["function"] in ACTIVATIONS
        ):
            writer.operators[-1][4][field] = ("int8", ACTIVATIONS.index(attributes["function"]))
            tensors[layer.name], channels[layer.name] = inputs[0], count
            continue
        elif layer.op == "activation":
            kind = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}.get(attributes["function"]) or attributes[
                "function"
            ].upper()
            options = {"beta": 1.0} if kind == "SOFTMAX" else {}
        elif layer.op == "average_pool2d" and mean:
            kind = "MEAN"
            inputs.append(add_integers(layer, "axes", [1, 2]))
        elif layer.op == "average_pool2d":
            kind = "AVERAGE_POOL_2D"
            height, width = attributes["kernel_size"] or (1, 1)
            options = {"filter_h": height, "filter_w": width, "padding": "VALID"}
            options |= {f"stride_{axis}": attributes["stride"] for axis in "wh"}
        elif layer.op == "pad":
            kind = "PAD"
            inputs.append(add_integers(layer, "paddings", [(0, 0), *attributes["padding"], (0, 0)]))
        elif layer.op in ("space_to_batch", "batch_to_space"):
            kind = f"{layer.op.upper()}_ND"
            inputs.append(add_integers(layer, "block", attributes["block"]))
            inputs.append(add_integers(layer, "margins", attributes.get("padding", attributes.get("crop"))))
        elif layer.op == "concatenate":
            kind, options, count = "CONCATENATION", {"axis": 3}, sum(channels[name] for name in layer.inputs)
        elif layer.op == "resize_bilinear":
            kind = "RESIZE_BILINEAR"
            inputs.append(add_integers(layer, "size", attributes.get("size", (9, 9))))
        else:
            kind = {"add": "ADD", "reshape": "RESHAPE", "argmax": "ARG_MAX"}[layer.op]
            inputs += [add_integers(layer, "axis", 3)] if layer.op == "argmax" else []
        tensors[layer.name] = writer.add_operator(kind, inputs, (1, 1, 1, count), layer.name, **options)
        channels[layer.name] = count
    writer.outputs = [tensors[layers[-1].name]]
    return writer


def _activation_field(writer: TFLiteWriter) -> int | None:
    """Return the number of the field with which the last operator can have an activation of its own."""
    schema = KINDS[writer.codes[-1][3][1]]
    return next((option.field for option in schema.options if option.name == "activation"), None)
