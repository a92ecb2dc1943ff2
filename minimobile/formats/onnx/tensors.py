"""ONNX's tensors as arrays: raw bytes, typed numbers, or bytes in a file beside the model; sizes are checked first.

Source: TensorProto in onnx.proto, and "External data" in ONNX's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats.onnx.schema import ARRAY_TYPES, DataLocation, ElementType, EntryField, TensorField
from minimobile.formats.protobuf import FIXED32, FIXED64, VARINT, as_number, as_view, fields, read_text, signed
from minimobile.formats.safetensors_file import widen_bfloat16
from minimobile.storage.files import open_regular, path_beside, regular_file_size

RANK_LIMIT = 8
ELEMENT_LIMIT = 2**31
VARINT_LIMIT = 2**24  # numbers that are not fixed in width take eight times their bytes; a V1 has four million
PIECE_LIMIT = 2**16  # fields that hold one number each, as no writer of today leaves them
BFLOAT16 = "bfloat16"
TYPE_NAMES: Mapping[int, str] = {
    **{int(kind): name for kind, name in ARRAY_TYPES.items()},
    ElementType.BFLOAT16: BFLOAT16,
}
"""Element type -> the name of the types that are read."""
_FIXED = {"float32": (TensorField.FLOAT_DATA, FIXED32), "float64": (TensorField.DOUBLE_DATA, FIXED64)}
_VARINTS = {"int64": TensorField.INT64_DATA, "uint32": TensorField.UINT64_DATA, "uint64": TensorField.UINT64_DATA}
_LISTS = (
    TensorField.FLOAT_DATA, TensorField.INT32_DATA, TensorField.INT64_DATA, TensorField.DOUBLE_DATA,
    TensorField.UINT64_DATA,
)  # fmt: skip


class Tensor(NamedTuple):
    """A tensor: its name, the name of its type (`type 17` for one that is not read), its shape and its values.

    `values` is None for types that NumPy does not have; bfloat16 comes as the float32 that it is the upper half of.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | None


@dataclass
class Surroundings:
    """The folder of a model, in which its external data are, and how many of their bytes have been read."""

    folder: Path
    spent: dict[Path, int] = field(default_factory=dict)

    def read(self, entries: dict[str, str], size: int, where: str) -> memoryview:
        """Return the `size` bytes of which a tensor's entries (location, offset, length) say where they are.

        Raises FormatError for a place outside the folder, a link, and bytes that are not there; and where tensors
        together take twice the bytes of a file, so that a small file cannot stand for much.
        """
        path = path_beside(self.folder, entries.get("location", ""), f"{where}: external data")
        numbers = {key: entries.get(key, default) for key, default in (("offset", "0"), ("length", str(size)))}
        if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in numbers.values()):
            _fail(where, "an offset and a length of external data in bytes", str(numbers)[:80])
        offset, length = int(numbers["offset"]), int(numbers["length"])
        try:
            found = regular_file_size(path)
        except MinimobileError as error:
            raise FormatError(f"{where}: external data: {error}") from None
        if length != size or offset + size > found:
            _fail(where, f"{size} bytes of external data", f"{length} from byte {offset} on, of {found} in {path.name}")
        self.spent[path] = self.spent.get(path, 0) + size
        if self.spent[path] > 2 * found:
            _fail(where, f"tensors about as large as {path.name}", "the same bytes for many of them")
        with open_regular(path) as file:
            file.seek(offset)
            return memoryview(file.read(size))


def read_tensor(data: memoryview, where: str, depth: int, around: Surroundings) -> Tensor:
    """Return a TensorProto; values are a view into the file where it has them as they are."""
    name, number = "", 0
    sizes: list[int] = []
    raw: memoryview | None = None
    listed: dict[int, list[tuple[int, int | memoryview]]] = {}
    entries: dict[str, str] = {}
    is_external = False
    for key, wire_type, value in fields(data, where, depth):
        if key == TensorField.DIMS:
            sizes += read_integers(wire_type, value, RANK_LIMIT, where)
        elif key == TensorField.DATA_TYPE:
            number = as_number(value, where)
        elif key == TensorField.NAME:
            name = read_text(value, where)
        elif key == TensorField.RAW_DATA:
            raw = as_view(value, where)
        elif key in _LISTS:
            listed.setdefault(key, []).append((wire_type, value))
            if len(listed[key]) > PIECE_LIMIT:
                _fail(where, f"at most {PIECE_LIMIT} numbers one by one", "more")
        elif key == TensorField.EXTERNAL_DATA:
            entry, text = read_entry(as_view(value, where), where, depth + 1)
            entries[entry] = text
        elif key == TensorField.DATA_LOCATION:
            is_external = value == DataLocation.EXTERNAL
        elif key == TensorField.SEGMENT:
            _fail(where, "a tensor in one piece", "a segment of one")
    where = f"{where}: tensor {name[:200]!r}" if name else where
    if len(sizes) > RANK_LIMIT or min(sizes, default=0) < 0 or math.prod(sizes) > ELEMENT_LIMIT:
        _fail(where, f"a shape of at most {RANK_LIMIT} sizes of zero or more", str(sizes[:9]))
    shape = tuple(sizes)
    dtype = TYPE_NAMES.get(number, f"type {number}")
    if dtype not in TYPE_NAMES.values():
        return Tensor(name, dtype, shape, None)
    stored = np.dtype(np.uint16 if dtype == BFLOAT16 else dtype).newbyteorder("<")
    count = math.prod(shape)
    if is_external:
        raw = around.read(entries, count * stored.itemsize, where)
    if raw is not None:
        if len(raw) != count * stored.itemsize:
            _fail(where, f"{count * stored.itemsize} bytes for {shape} of {dtype}", f"{len(raw)}")
        values: NDArray[Any] = np.frombuffer(raw, stored)
    else:
        values = _read_list(dtype, listed, count, where)
    values = values.reshape(shape)
    return Tensor(name, dtype, shape, widen_bfloat16(values) if dtype == BFLOAT16 else values)


def read_entry(data: memoryview, where: str, depth: int) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    found = {number: value for number, _, value in fields(data, where, depth)}
    key, value = (read_text(found.get(number, memoryview(b"")), where) for number in EntryField)
    return key, value


def read_integers(wire_type: int, value: int | memoryview, limit: int, where: str) -> list[int]:
    """Return the int64 of one field of a repeated one, packed or not."""
    if not isinstance(value, int):
        return [int(number) for number in _read_varints(value, limit, where).astype(np.int64)]
    if wire_type != VARINT:
        _fail(where, "variable-length numbers", "one of fixed length")
    return [signed(value)]


def _read_list(
    dtype: str, listed: dict[int, list[tuple[int, int | memoryview]]], count: int, where: str
) -> NDArray[Any]:
    """Return the values that a tensor has in its typed fields."""
    parts: list[NDArray[Any]] = []
    if dtype in _FIXED:
        field, fixed = _FIXED[dtype]
        stored = np.dtype(dtype).newbyteorder("<")
        for wire_type, value in listed.get(field, []):
            content = value.to_bytes(8, "little")[: stored.itemsize] if isinstance(value, int) else value
            if (isinstance(value, int) and wire_type != fixed) or len(content) % stored.itemsize:
                _fail(where, f"whole numbers of {dtype}", "something else")
            parts.append(np.frombuffer(content, stored))
    else:
        for wire_type, value in listed.get(_VARINTS.get(dtype, TensorField.INT32_DATA), []):
            if not isinstance(value, int):
                parts.append(_read_varints(value, min(count, VARINT_LIMIT), where))
            elif wire_type == VARINT:
                parts.append(np.array([value], np.uint64))
            else:
                _fail(where, "variable-length numbers", "one of fixed length")
    found = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint8), *parts])
    if len(found) != count:
        _fail(where, f"{count} numbers of {dtype}", f"{len(found)}")
    if dtype in _FIXED:
        return found
    if dtype in ("float16", BFLOAT16):  # the bits in the low half of an integer
        bits = found.astype(np.uint16)
        return bits if dtype == BFLOAT16 else bits.view(np.float16)
    return found.astype(bool if dtype == "bool" else dtype)


def _read_varints(data: memoryview, limit: int, where: str) -> NDArray[np.uint64]:
    """Return the variable-length numbers of a packed field, `limit` at most."""
    content = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(content < 0x80)  # the last byte of each
    if len(ends) > limit:
        _fail(where, f"at most {limit} variable-length numbers", f"{len(ends)}")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(0, np.int64)
    lengths = ends - starts + 1
    if (len(ends) and (lengths.max() > 10 or ends[-1] + 1 < len(content))) or (not len(ends) and len(content)):
        _fail(where, "whole variable-length numbers", "a part of one")
    numbers = np.zeros(len(ends), np.uint64)
    for index in range(int(lengths.max(initial=0))):
        is_there = lengths > index
        digits = content[starts[is_there] + index].astype(np.uint64) & np.uint64(0x7F)
        numbers[is_there] |= digits << np.uint64(7 * index)
    return numbers


def _fail(where: str, expected: str, found: str) -> NoReturn:
    raise FormatError(f"{where}: expected {expected}, found {found}")
