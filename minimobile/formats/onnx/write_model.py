"""An ONNX file byte by byte: operators, constants, inputs, outputs and metadata -> ModelProto.

Written without the package `onnx`: what a MobileNet needs of the format is a dozen of its messages, and no user should
have to install a library of compiled code to save a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.onnx.schema import (
    ARRAY_TYPES,
    AttributeField,
    AttributeType,
    DimensionField,
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

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12 (2022): every runtime in use reads them
PRODUCER = "minimobile"
_ELEMENT_TYPES = {name: int(number) for number, name in ARRAY_TYPES.items()}

Attribute = int | float | str | Sequence[int]
Size = int | str
"""Of one axis: a number, or the name of what is open."""
Field = tuple[int, int | float | str | bytes | memoryview]


@dataclass(frozen=True)
class Operator:
    """One node: an operator of ONNX's own domain that reads tensors ("": left out) and makes one."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """What goes in or comes out: a tensor's name, NumPy's name of its type, and its shape."""

    name: str
    dtype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Model:
    """A whole file: operators in an order in which they can be computed, constants by name, and what surrounds them."""

    operators: tuple[Operator, ...]
    constants: Mapping[str, NDArray[Any]]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def write_model(model: Model) -> bytes:
    """Return the content of a file."""
    graph: list[Field] = [(GraphField.NODE, _write_operator(operator)) for operator in model.operators]
    graph.append((GraphField.NAME, PRODUCER))
    graph += [(GraphField.INITIALIZER, _write_tensor(name, values)) for name, values in model.constants.items()]
    graph += [(GraphField.INPUT, write_value(value)) for value in model.inputs]
    graph += [(GraphField.OUTPUT, write_value(value)) for value in model.outputs]
    fields: list[Field] = [(ModelField.IR_VERSION, IR_VERSION), (ModelField.PRODUCER_NAME, PRODUCER)]
    if model.description:
        fields.append((ModelField.DOC_STRING, model.description))
    fields.append((ModelField.GRAPH, write_message(graph)))
    opset: list[Field] = [(OperatorSetField.DOMAIN, ""), (OperatorSetField.VERSION, OPSET)]
    fields.append((ModelField.OPSET_IMPORT, write_message(opset)))
    for key, value in model.metadata.items():
        fields.append((ModelField.METADATA_PROPS, write_message([(EntryField.KEY, key), (EntryField.VALUE, value)])))
    return write_message(fields)


def _write_operator(operator: Operator) -> bytes:
    fields: list[Field] = [(NodeField.INPUT, name) for name in operator.inputs]
    fields += [(NodeField.OUTPUT, operator.output), (NodeField.NAME, operator.name), (NodeField.OP_TYPE, operator.kind)]
    for name, value in operator.attributes.items():
        fields.append((NodeField.ATTRIBUTE, write_message([(AttributeField.NAME, name), *_attribute(value)])))
    return write_message(fields)


def _attribute(value: Attribute) -> list[Field]:
    if isinstance(value, str):
        return [(AttributeField.S, value), (AttributeField.TYPE, AttributeType.STRING)]
    if isinstance(value, int):
        return [(AttributeField.I, value), (AttributeField.TYPE, AttributeType.INT)]
    if isinstance(value, float):
        return [(AttributeField.F, value), (AttributeField.TYPE, AttributeType.FLOAT)]
    return [*((AttributeField.INTS, number) for number in value), (AttributeField.TYPE, AttributeType.INTS)]


def _write_tensor(name: str, values: NDArray[Any]) -> bytes:
    content = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    sizes: list[Field] = [(TensorField.DIMS, size) for size in values.shape]
    kind = _ELEMENT_TYPES[values.dtype.name]
    return write_message(
        [*sizes, (TensorField.DATA_TYPE, kind), (TensorField.NAME, name), (TensorField.RAW_DATA, content)]
    )


def write_value(value: Value) -> bytes:
    """Return a ValueInfoProto."""
    sizes = (
        write_message([(DimensionField.PARAM if isinstance(size, str) else DimensionField.VALUE, size)])
        for size in value.shape
    )
    shape = write_message([(ShapeField.DIM, size) for size in sizes])
    kind = _ELEMENT_TYPES[value.dtype]
    tensor = write_message([(TensorTypeField.ELEM_TYPE, kind), (TensorTypeField.SHAPE, shape)])
    return write_message(
        [(ValueField.NAME, value.name), (ValueField.TYPE, write_message([(TypeField.TENSOR_TYPE, tensor)]))]
    )


def write_message(fields: Iterable[Field]) -> bytes:
    """Return one protobuf message: whole numbers as varints, floats in 32 bits, the rest with its length before it."""
    parts: list[bytes | memoryview] = []
    for number, value in fields:
        if isinstance(value, float):
            parts += [_varint(number << 3 | 5), np.array(value, "<f4").tobytes()]
        elif isinstance(value, int):
            parts += [_varint(number << 3), _varint(value)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(len(content)), content]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, a negative one as 64 bits."""
    number %= 2**64
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
