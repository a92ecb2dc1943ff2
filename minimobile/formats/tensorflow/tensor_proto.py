"""Attributes of TensorFlow's nodes as Python values, constants among them; every size is checked before it is believed.

Source: attr_value.proto, tensor.proto, tensor_shape.proto, types.proto of TensorFlow (tensorflow/core/framework).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.protobuf import FIXED32, FIXED64, VARINT, as_number, as_view, fields, read_varints, signed

VARINT_LIMIT = 2**16  # numbers that are not fixed in width are sizes and axes; weights are never among them
RANK_LIMIT = 8
ELEMENT_LIMIT = 2**31

# DataType: number -> name, NumPy's where NumPy has the type.
DATA_TYPES: Mapping[int, str] = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 19: "float16", 20: "resource", 22: "uint32", 23: "uint64",
}  # fmt: skip

# The field of TensorProto that has the values of a type one by one; types without one are not read.
_VALUE_FIELDS: Mapping[str, int] = {
    "float32": 5, "float64": 6, "int32": 7, "uint8": 7, "int16": 7, "int8": 7, "uint16": 7, "int64": 10, "bool": 11,
    "float16": 13, "uint32": 16, "uint64": 17,
}  # fmt: skip
_FIXED_WIDTHS = {"float32": FIXED32, "float64": FIXED64}

Field = tuple[int, int, "int | memoryview"]


class Shape(NamedTuple):
    """The sizes of a tensor, -1 for what is not known; None where not even their number is."""

    sizes: tuple[int, ...] | None


class Tensor(NamedTuple):
    """A constant: the name of its type, its shape, and its values; None where NumPy has no such type.

    Values are a view into the file where it has them as they are. Values that the file repeats instead of spelling out
    (a bias of zeros) are one number in memory, too.
    """

    dtype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | None


def read_attribute(data: memoryview, where: str) -> Any:
    """Return an AttrValue: int, float, bool, str (texts and types), Shape, Tensor, or a tuple of integers or Shapes.

    None for the kinds that no operation of a MobileNet has.
    """
    found: Any = None
    for number, _, value in fields(data, where, depth=3):
        if number == 1:
            found = _read_list(as_view(value, where), where)
        elif number == 2:
            found = bytes(as_view(value, where)).decode(errors="replace")
        elif number == 3:
            found = signed(as_number(value, where))
        elif number == 4:
            found = float(np.uint32(as_number(value, where) & 0xFFFFFFFF).view(np.float32))
        elif number == 5:
            found = bool(as_number(value, where))
        elif number == 6:
            found = name_type(as_number(value, where))
        elif number == 7:
            found = read_shape(as_view(value, where), where)
        elif number == 8:
            found = _read_tensor(as_view(value, where), where)
    return found


def name_type(number: int) -> str:
    """Return the name of a DataType."""
    return DATA_TYPES.get(number, f"type {number}")


def _read_list(data: memoryview, where: str) -> tuple[Any, ...]:
    """Return the integers or the shapes of a list; of other lists nothing is needed."""
    found: list[Any] = []
    for field in fields(data, where, depth=4):
        if field[0] == 3:
            found += [signed(number) for number in _read_numbers([field], where)]
        elif field[0] == 7:
            found.append(read_shape(as_view(field[2], where), where))
        if len(found) > VARINT_LIMIT:
            raise FormatError(f"{where}: expected a list of at most {VARINT_LIMIT} entries, found more")
    return tuple(found)


def read_shape(data: memoryview, where: str) -> Shape:
    """Return a TensorShapeProto."""
    sizes: list[int] = []
    for number, _, value in fields(data, where, depth=5):
        if number == 2:
            entry = {n: v for n, _, v in fields(as_view(value, where), where, depth=6)}
            sizes.append(signed(as_number(entry.get(1, 0), where)))
            if len(sizes) > RANK_LIMIT:
                raise FormatError(f"{where}: expected a shape of at most {RANK_LIMIT} dimensions, found more")
        elif number == 3 and value:
            return Shape(None)
    return Shape(tuple(sizes))


def _read_tensor(data: memoryview, where: str) -> Tensor:
    dtype, shape = "float32", Shape(())
    content = memoryview(b"")
    listed: list[Field] = []
    for field in fields(data, where, depth=4):
        number, _, value = field
        if number == 1:
            dtype = name_type(as_number(value, where))
        elif number == 2:
            shape = read_shape(as_view(value, where), where)
        elif number == 4:
            content = as_view(value, where)
        elif number in _VALUE_FIELDS.values():
            listed.append(field)
            if len(listed) > VARINT_LIMIT:
                raise FormatError(f"{where}: expected at most {VARINT_LIMIT} values one by one, found more")
    sizes = shape.sizes
    if sizes is None or min(sizes, default=0) < 0 or math.prod(sizes) > ELEMENT_LIMIT:
        raise FormatError(f"{where}: expected the shape of a constant, found {sizes}")
    if dtype not in _VALUE_FIELDS:
        return Tensor(dtype, sizes, None)
    if not len(content):
        values = _read_values(dtype, [field for field in listed if field[0] == _VALUE_FIELDS[dtype]], where)
        return Tensor(dtype, sizes, _repeat_last(values, sizes, where))
    little = np.dtype(dtype).newbyteorder("<")
    if len(content) != math.prod(sizes) * little.itemsize:
        wanted = math.prod(sizes) * little.itemsize
        raise FormatError(f"{where}: expected {wanted} bytes for {sizes} of {dtype}, found {len(content)}")
    return Tensor(dtype, sizes, np.frombuffer(content, little).reshape(sizes))


def _read_values(dtype: str, listed: list[Field], where: str) -> NDArray[Any]:
    """Return the values of a constant that are there one by one, packed or not."""
    if dtype not in _FIXED_WIDTHS:
        numbers = np.array(_read_numbers(listed, where), np.uint64)
        if dtype == "float16":  # the bits in the low half of an integer
            return numbers.astype(np.uint16).view(np.float16)
        return numbers.astype(bool if dtype == "bool" else dtype)
    little = np.dtype(dtype).newbyteorder("<")
    parts = [np.zeros(0, little)]
    for _, wire_type, value in listed:
        content = value
        if isinstance(content, int) and wire_type == _FIXED_WIDTHS[dtype]:
            content = memoryview(content.to_bytes(little.itemsize, "little"))
        if isinstance(content, int) or len(content) % little.itemsize:
            raise FormatError(f"{where}: expected whole numbers of {little.itemsize} bytes, found something else")
        parts.append(np.frombuffer(content, little))
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def _repeat_last(values: NDArray[Any], sizes: tuple[int, ...], where: str) -> NDArray[Any]:
    """Return `values` in the shape `sizes`; what is missing is the last value over again, or zero if there is none."""
    count = math.prod(sizes)
    if len(values) > count:
        raise FormatError(f"{where}: expected at most {count} values for the shape {sizes}, found {len(values)}")
    if len(values) == count:
        return values.reshape(sizes)
    if len(values) <= 1:
        return np.broadcast_to(values[0] if len(values) else values.dtype.type(0), sizes)
    if count > VARINT_LIMIT:
        raise FormatError(f"{where}: expected {count} values for the shape {sizes}, found {len(values)}")
    return np.concatenate([values, np.full(count - len(values), values[-1])]).reshape(sizes)


def _read_numbers(listed: list[Field], where: str) -> list[int]:
    """Return the variable-length numbers of a repeated field, packed or one by one."""
    found: list[int] = []
    for _, wire_type, value in listed:
        if isinstance(value, int):
            if wire_type != VARINT:
                raise FormatError(f"{where}: expected variable-length numbers, found one of fixed length")
            found.append(value)
            continue
        count = len(found) + np.count_nonzero(np.frombuffer(value, np.uint8) < 0x80)  # each number's last byte
        if count > VARINT_LIMIT:
            raise FormatError(f"{where}: expected at most {VARINT_LIMIT} variable-length numbers, found {count}")
        found += read_varints(value, where)
    return found
