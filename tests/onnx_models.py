"""ONNX models written byte by byte, as protobuf's documentation and onnx.proto have them, and networks in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graph_writer import field, varint
from numpy.typing import NDArray
from spelling import random_weights, spell

from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.onnx.schema import (
    ARRAY_TYPES,
    AttributeField,
    AttributeType,
    DataLocation,
    DimensionField,
    ElementType,
    EntryField,
    GraphField,
    ModelField,
    NodeField,
    OperatorSetField,
    ShapeField,
    TensorField,
    TensorTypeField,
    TypeField,
    ValueField,
)
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config

CODES = {name: int(code) for code, name in ARRAY_TYPES.items()}


def packed(numbers: Iterable[int]) -> bytes:
    """Return the content of a packed field of variable-length numbers."""
    return b"".join(varint(int(number)) for number in numbers)


def entry(key: str, value: str) -> bytes:
    """Return a StringStringEntryProto."""
    return field(EntryField.KEY, key) + field(EntryField.VALUE, value)


def tensor(name: str, values: Any, form: str = "raw", **lies: Any) -> bytes:
    """Return a TensorProto: its values as "raw" bytes, in a "typed" field, or "bfloat16".

    `lies`: another `shape`, `code` of the type, or `content`; `external`, what is said of a file beside the model.
    """
    array = np.asarray(values)
    code = int(ElementType.BFLOAT16) if form == "bfloat16" else CODES[array.dtype.name]
    parts = [field(TensorField.DIMS, int(size)) for size in lies.get("shape", array.shape)]
    parts += [field(TensorField.DATA_TYPE, lies.get("code", code)), field(TensorField.NAME, name)]
    if form == "bfloat16":
        array = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if "external" in lies:
        parts += [field(TensorField.EXTERNAL_DATA, entry(*pair)) for pair in lies["external"].items()]
        parts.append(field(TensorField.DATA_LOCATION, int(DataLocation.EXTERNAL)))
    elif form != "typed":
        parts.append(field(TensorField.RAW_DATA, lies.get("content", array.tobytes())))
    elif array.dtype == np.float32:
        parts.append(field(TensorField.FLOAT_DATA, array.tobytes()))
    elif array.dtype == np.float64:
        parts.append(field(TensorField.DOUBLE_DATA, array.tobytes()))
    elif array.dtype == np.int64:
        parts.append(field(TensorField.INT64_DATA, packed(array.ravel().tolist())))
    else:
        bits = array.view(np.uint16) if array.dtype == np.float16 else array
        parts.append(field(TensorField.INT32_DATA, packed(bits.ravel().tolist())))
    return b"".join(parts)


def initializer(name: str, values: Any, form: str = "raw", **lies: Any) -> bytes:
    """Return a graph's field with a constant."""
    return field(GraphField.INITIALIZER, tensor(name, values, form, **lies))


def attribute(name: str, value: Any) -> bytes:
    """Return an AttributeProto: int, float, str, array, or a list of integers."""
    number, kind, content = AttributeField.INTS, AttributeType.INTS, b""
    if isinstance(value, float):
        number, kind = AttributeField.F, AttributeType.FLOAT
    elif isinstance(value, int):
        number, kind = AttributeField.I, AttributeType.INT
    elif isinstance(value, str):
        number, kind = AttributeField.S, AttributeType.STRING
    elif isinstance(value, np.ndarray):
        number, kind, value = AttributeField.T, AttributeType.TENSOR, tensor("", value)
    else:
        content = b"".join(field(number, size % 2**64) for size in value)
    content = content or (b"" if number == AttributeField.INTS else field(number, value))
    return field(AttributeField.NAME, name) + content + field(AttributeField.TYPE, int(kind))


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> bytes:
    """Return a graph's field with a node; `label` is its own name, `domain` its operator's."""
    label, domain = attributes.pop("label", ""), attributes.pop("domain", "")
    parts = [field(NodeField.INPUT, name) for name in inputs] + [field(NodeField.OUTPUT, output)]
    parts += [field(NodeField.NAME, label), field(NodeField.OP_TYPE, op), field(NodeField.DOMAIN, domain)]
    parts += [field(NodeField.ATTRIBUTE, attribute(*pair)) for pair in attributes.items()]
    return field(GraphField.NODE, b"".join(parts))


def value(number: GraphField, name: str, shape: Sequence[int | str]) -> bytes:
    """Return a graph's field with an input or output of float32; a text is an open size."""
    dims = (field(DimensionField.PARAM if isinstance(size, str) else DimensionField.VALUE, size) for size in shape)
    content = b"".join(field(ShapeField.DIM, dim) for dim in dims)
    kind = field(TensorTypeField.ELEM_TYPE, int(ElementType.FLOAT)) + field(TensorTypeField.SHAPE, content)
    return field(number, field(ValueField.NAME, name) + field(ValueField.TYPE, field(TypeField.TENSOR_TYPE, kind)))


def model(
    *parts: bytes, shape: Sequence[int | str] = (1, 3, 32, 32), opset: int = 17, producer: str = "pytorch",
    outputs: Sequence[str] = ("logits",), picture: str = "pixels", more: bytes = b"",
) -> bytes:  # fmt: skip
    """Return a ModelProto of a graph's fields."""
    graph = [*parts, field(GraphField.NAME, "net"), value(GraphField.INPUT, picture, shape)]
    graph += [value(GraphField.OUTPUT, name, ()) for name in outputs]
    return (
        field(ModelField.IR_VERSION, 8)
        + field(ModelField.PRODUCER_NAME, producer)
        + field(ModelField.GRAPH, b"".join(graph))
        + field(ModelField.OPSET_IMPORT, field(OperatorSetField.VERSION, opset))
        + more
    )


def write_layers(layers: Sequence[Layer], opset: int = 17, form: str = "raw", style: str = "torch") -> list[bytes]:
    """Return the fields of spelled layers' graph; the last result is called logits.

    `style`: "torch", "inputs" and "attributes" for what newer and older operator sets have; "minmax" for relu6 as Min
    and Max; "channels last" for TensorFlow's layout with transposes around each convolution.
    """
    writer = _LayerWriter(opset, form, style)
    for layer in layers[:-1]:
        writer.write(layer, layer.name)
    writer.write(layers[-1], "logits")
    return writer.parts


class _LayerWriter:
    def __init__(self, opset: int, form: str, style: str) -> None:
        self.opset = opset
        self.form = form
        self.style = style
        self.parts: list[bytes] = []
        self.names = {PICTURE: "pixels"}

    def constant(self, name: str, values: Any, form: str | None = None) -> str:
        self.parts.append(initializer(name, values, form or self.form))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, np.int64), "typed" if self.form == "typed" else "raw")

    def write(self, layer: Layer, output: str) -> None:
        self.names[layer.name] = output
        inputs = [self.names[name] for name in layer.inputs]
        getattr(self, f"write_{layer.op}")(layer, inputs, output)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self.parts.append(node(op, inputs, output, label=f"/{op}/{output}", **attributes))

    def write_conv2d(self, layer: Layer, inputs: list[str], output: str) -> None:
        arrays = {role: np.asarray(values, np.float32) for role, values in layer.arrays.items()}
        if self.form == "float16":
            arrays = {role: values.astype(np.float16) for role, values in arrays.items()}
        names = [self.constant(f"{layer.name}.{role}", arrays[role], self.form_of(arrays[role]))
                 for role in ("weight", "bias") if role in arrays]  # fmt: skip
        padding = layer.attributes["padding"]
        attributes: dict[str, Any] = {
            "group": len(arrays["weight"]) if layer.op == "depthwise_conv2d" else 1,
            "kernel_shape": list(arrays["weight"].shape[2:]),
            "strides": [layer.attributes["stride"]] * 2,
            "dilations": [layer.attributes["dilation"]] * 2,
        }
        if padding == "SAME":
            attributes["auto_pad"] = "SAME_UPPER"
        elif padding != "VALID":
            (top, bottom), (left, right) = padding
            attributes["pads"] = [top, left, bottom, right]
        if self.style == "channels last":
            self.add("Transpose", inputs, f"{output}/in", perm=[0, 3, 1, 2])
            self.add("Conv", [f"{output}/in", *names], f"{output}/out", **attributes)
            self.add("Transpose", [f"{output}/out"], output, perm=[0, 2, 3, 1])
        else:
            self.add("Conv", [*inputs, *names], output, **attributes)

    write_depthwise_conv2d = write_conv2d

    def form_of(self, values: NDArray[Any]) -> str:
        return "raw" if values.dtype == np.float16 else self.form

    def write_dense(self, layer: Layer, inputs: list[str], output: str) -> None:
        weight = self.constant(f"{layer.name}.weight", layer.arrays["weight"])
        bias = self.constant(f"{layer.name}.bias", layer.arrays["bias"])
        self.add("Gemm", [*inputs, weight, bias], output, transB=1)

    def write_batch_norm(self, layer: Layer, inputs: list[str], output: str) -> None:
        names = [
            self.constant(f"{layer.name}.{role}", layer.arrays[role]) for role in ("weight", "bias", "mean", "variance")
        ]
        self.add("BatchNormalization", [*inputs, *names], output, epsilon=float(layer.attributes["epsilon"]))

    def write_activation(self, layer: Layer, inputs: list[str], output: str) -> None:
        function = layer.attributes["function"]
        if function == "gelu" and self.opset < 20:  # as PyTorch's older exporter spells it
            root, one, half = (
                self.constant(f"{output}/{number}", np.float32(number)) for number in (np.sqrt(2), 1, 0.5)
            )
            self.add("Div", [*inputs, root], f"{output}/scaled")
            self.add("Erf", [f"{output}/scaled"], f"{output}/erf")
            self.add("Add", [f"{output}/erf", one], f"{output}/raised")
            self.add("Mul", [*inputs, f"{output}/raised"], f"{output}/whole")
            self.add("Mul", [f"{output}/whole", half], output)
        elif function in ("silu", "hardswish"):
            self.write_product(function, inputs[0], output)
        elif function != "relu6":
            self.add(function.capitalize(), inputs, output)
        elif self.style == "minmax":
            six = self.constant(f"{output}/six", np.float32(6))
            self.add("Relu", inputs, f"{output}/relu")
            self.add("Min", [six, f"{output}/relu"], output)
        elif self.opset >= 11:
            limits = [self.constant(f"{output}/{limit}", np.float32(limit)) for limit in (0, 6)]
            self.add("Clip", [*inputs, *limits], output)
        else:
            self.add("Clip", inputs, output, min=0.0, max=6.0)

    def write_product(self, function: str, x: str, output: str) -> None:
        """Write an activation as operators: `style` "channels last" with transposes between them, too."""
        if self.style == "channels last":
            self.add("Transpose", [x], f"{output}/moved", perm=[0, 3, 1, 2])
            x, whole = f"{output}/moved", x
        if function == "silu":
            self.add("Sigmoid", [x], f"{output}/factor")
        elif self.style == "torch":
            self.add("HardSigmoid", [x], f"{output}/factor", alpha=1 / 6, beta=0.5)
        else:
            three, low, high = (self.constant(f"{output}/{number}", np.float32(number)) for number in (3, 0, 6))
            sixth = self.constant(f"{output}/sixth", np.float32(1 / 6))
            self.add("Add", [x, three], f"{output}/raised")
            self.add("Clip", [f"{output}/raised", low, high], f"{output}/clipped")
            self.add("Mul", [f"{output}/clipped", sixth], f"{output}/factor")
        if self.style == "channels last":
            self.add("Transpose", [f"{output}/factor"], f"{output}/back", perm=[0, 2, 3, 1])
            self.add("Mul", [whole, f"{output}/back"], output)
        else:
            self.add("Mul", [x, f"{output}/factor"], output)

    def write_pad(self, layer: Layer, inputs: list[str], output: str) -> None:
        (top, bottom), (left, right) = layer.attributes["padding"]
        amounts = [0, 0, top, left, 0, 0, bottom, right]
        if self.style == "channels last":
            amounts = [0, top, left, 0, 0, bottom, right, 0]
        if self.opset >= 11:
            self.add("Pad", [*inputs, self.integers(f"{output}/pads", amounts)], output, mode="constant")
        else:
            self.add("Pad", inputs, output, mode="constant", pads=amounts, value=0.0)

    def write_average_pool2d(self, layer: Layer, inputs: list[str], output: str) -> None:
        kernel = layer.attributes["kernel_size"]
        axes = [1, 2] if self.style == "channels last" else [-1, -2]
        if kernel is not None:
            self.add("AveragePool", inputs, output, kernel_shape=list(kernel), strides=[layer.attributes["stride"]] * 2)
        elif self.style == "torch":
            self.add("GlobalAveragePool", inputs, output)
        elif self.opset >= 18:
            self.add("ReduceMean", [*inputs, self.integers(f"{output}/axes", axes)], output, keepdims=1)
        else:
            self.add("ReduceMean", inputs, output, axes=axes, keepdims=1)

    def write_reshape(self, layer: Layer, inputs: list[str], output: str) -> None:
        if self.style == "torch":
            self.add("Flatten", inputs, output, axis=1)
        else:
            self.add("Reshape", [*inputs, self.integers(f"{output}/shape", [0, -1])], output)

    def write_add(self, layer: Layer, inputs: list[str], output: str) -> None:
        self.add("Add", inputs, output)

    def write_concatenate(self, layer: Layer, inputs: list[str], output: str) -> None:
        self.add("Concat", inputs, output, axis=3 if self.style == "channels last" else 1)

    def write_resize_bilinear(self, layer: Layer, inputs: list[str], output: str) -> None:
        sizes = self.integers(f"{output}/sizes", [1, 256, *layer.attributes["size"]])
        rule = "align_corners" if layer.attributes["align_corners"] else "half_pixel"
        self.add("Resize", [*inputs, "", "", sizes], output, mode="linear", coordinate_transformation_mode=rule)


def tiny_layers(**spelling: Any) -> tuple[list[Layer], dict[str, NDArray[Any]]]:
    """Return the layers of a V1 with a tenth of the channels, and its weights by canonical name."""
    config = MobileNetV1Config(depth_multiplier=0.1, num_labels=5, image_size=32)
    graph = build_graph(config, "MobileNetV1ForImageClassification")
    weights = random_weights(graph)
    return spell(graph, weights, **{"dense": True, "tail": ()} | spelling), weights


def tiny_v1(opset: int = 17, form: str = "raw", style: str = "torch", **spelling: Any) -> bytes:
    """Return the model of `tiny_layers`."""
    layers, _ = tiny_layers(**spelling)
    shape = (1, 32, 32, 3) if style == "channels last" else (1, 3, 32, 32)
    return model(*write_layers(layers, opset, form, style), opset=opset, shape=shape)


def external_v1(folder: Any, name: str = "net.onnx", data: str = "net.onnx.data") -> Any:
    """Write the model of `tiny_layers` with its weights in a file beside it, and return its path."""
    content = bytearray()
    layers, _ = tiny_layers()
    parts = []
    for part in write_layers(layers):
        parts.append(part)
    arrays = [(f"{layer.name}.{role}", values) for layer in layers for role, values in layer.arrays.items()]
    for label, values in arrays:
        plain = initializer(label, values)
        place = {"location": data, "offset": str(len(content)), "length": str(values.nbytes)}
        parts[parts.index(plain)] = initializer(label, values, external=place)
        content += values.tobytes() + bytes(-values.nbytes % 64)
    (folder / data).write_bytes(content)
    (folder / name).write_bytes(model(*parts))
    return folder / name


def rewrite(path: Path, old: str, *new: bytes, **options: Any) -> None:
    """Write the model of `tiny_layers` with one node, the first of an operator, replaced."""
    parts = write_layers(tiny_layers()[0])
    at = [index for index, part in enumerate(parts) if field(4, old) in part]
    parts[at[0] : at[0] + 1] = new
    path.write_bytes(model(*parts, **options))


def assert_same_numbers(
    checkpoint: Any, weights: Mapping[str, NDArray[Any]], change: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray
) -> None:
    """Require that a checkpoint has these weights, float32, bit for bit, after `change`."""
    assert set(checkpoint.weights) == set(weights)
    for name, values in weights.items():
        found = checkpoint.weights[name]
        assert found.dtype == np.float32
        assert found.tobytes() == np.ascontiguousarray(change(values), np.float32).tobytes(), name
