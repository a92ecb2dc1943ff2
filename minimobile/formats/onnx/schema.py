"""ONNX's messages as tables: the numbers of fields, element types and attribute types (onnx.proto, IR version 14).

A field's number never changes once it is given; a newer file may have fields that are not here, and is read without.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

DEFAULT_DOMAINS = ("", "ai.onnx")
"""The names of the domain of ONNX's own operators."""


class ModelField(IntEnum):
    """ModelProto: the whole file."""

    IR_VERSION = 1
    PRODUCER_NAME = 2
    PRODUCER_VERSION = 3
    DOMAIN = 4
    MODEL_VERSION = 5
    DOC_STRING = 6
    GRAPH = 7
    OPSET_IMPORT = 8
    METADATA_PROPS = 14
    FUNCTIONS = 25


class OperatorSetField(IntEnum):
    """OperatorSetIdProto."""

    DOMAIN = 1
    VERSION = 2


class EntryField(IntEnum):
    """StringStringEntryProto: metadata, and where external data is."""

    KEY = 1
    VALUE = 2


class GraphField(IntEnum):
    """GraphProto."""

    NODE = 1
    NAME = 2
    INITIALIZER = 5
    DOC_STRING = 10
    INPUT = 11
    OUTPUT = 12
    VALUE_INFO = 13
    QUANTIZATION_ANNOTATION = 14
    SPARSE_INITIALIZER = 15
    METADATA_PROPS = 16


class NodeField(IntEnum):
    """NodeProto."""

    INPUT = 1
    OUTPUT = 2
    NAME = 3
    OP_TYPE = 4
    ATTRIBUTE = 5
    DOC_STRING = 6
    DOMAIN = 7
    OVERLOAD = 8
    METADATA_PROPS = 9


class FunctionField(IntEnum):
    """FunctionProto."""

    NAME = 1
    INPUT = 4
    OUTPUT = 5
    ATTRIBUTE = 6
    NODE = 7
    DOC_STRING = 8
    OPSET_IMPORT = 9
    DOMAIN = 10
    ATTRIBUTE_PROTO = 11
    VALUE_INFO = 12
    OVERLOAD = 13
    METADATA_PROPS = 14


class AttributeField(IntEnum):
    """AttributeProto."""

    NAME = 1
    F = 2
    I = 3  # noqa: E741 - its name in the schema
    S = 4
    T = 5
    G = 6
    FLOATS = 7
    INTS = 8
    STRINGS = 9
    TENSORS = 10
    GRAPHS = 11
    DOC_STRING = 13
    TYPE = 20
    REF_ATTR_NAME = 21


class AttributeType(IntEnum):
    """AttributeProto.AttributeType."""

    UNDEFINED = 0
    FLOAT = 1
    INT = 2
    STRING = 3
    TENSOR = 4
    GRAPH = 5
    FLOATS = 6
    INTS = 7
    STRINGS = 8
    TENSORS = 9
    GRAPHS = 10


class TensorField(IntEnum):
    """TensorProto."""

    DIMS = 1
    DATA_TYPE = 2
    SEGMENT = 3
    FLOAT_DATA = 4
    INT32_DATA = 5
    STRING_DATA = 6
    INT64_DATA = 7
    NAME = 8
    RAW_DATA = 9
    DOUBLE_DATA = 10
    UINT64_DATA = 11
    DOC_STRING = 12
    EXTERNAL_DATA = 13
    DATA_LOCATION = 14
    METADATA_PROPS = 16


class DataLocation(IntEnum):
    """TensorProto.DataLocation."""

    DEFAULT = 0
    EXTERNAL = 1


class ElementType(IntEnum):
    """TensorProto.DataType, as far as files of networks have them."""

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    BFLOAT16 = 16
    UINT4 = 21
    INT4 = 22


class ValueField(IntEnum):
    """ValueInfoProto: a tensor's name and type."""

    NAME = 1
    TYPE = 2
    DOC_STRING = 3


class TypeField(IntEnum):
    """TypeProto."""

    TENSOR_TYPE = 1
    SEQUENCE_TYPE = 4
    MAP_TYPE = 5
    DENOTATION = 6


class TensorTypeField(IntEnum):
    """TypeProto.Tensor."""

    ELEM_TYPE = 1
    SHAPE = 2


class ShapeField(IntEnum):
    """TensorShapeProto."""

    DIM = 1


class DimensionField(IntEnum):
    """TensorShapeProto.Dimension: a size, or the name of an open one."""

    VALUE = 1
    PARAM = 2


ARRAY_TYPES: Mapping[ElementType, str] = {
    ElementType.FLOAT: "float32",
    ElementType.UINT8: "uint8",
    ElementType.INT8: "int8",
    ElementType.UINT16: "uint16",
    ElementType.INT16: "int16",
    ElementType.INT32: "int32",
    ElementType.INT64: "int64",
    ElementType.BOOL: "bool",
    ElementType.FLOAT16: "float16",
    ElementType.DOUBLE: "float64",
    ElementType.UINT32: "uint32",
    ElementType.UINT64: "uint64",
}
"""NumPy's names of the element types that it has; bfloat16, which it has not, is the upper half of a float32."""
