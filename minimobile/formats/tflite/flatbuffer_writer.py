"""FlatBuffers from plain Python values: tables before texts and arrays, of which equal ones are stored once.

Tables of one layout share their vtable, and all zero points of a network with a scale per channel (48 KB of V1 0.25's
605) are a few arrays of zeros. Offsets lead forwards, so that what several tables share stands behind all of them.

A writer of our own, for these are a hundred lines: the `flatbuffers` package would be one more dependency, and bindings
for TFLite's schema thousands of generated lines; what is to be written is known as a tree before the first byte is.
Source: FlatBuffers' "internals" page.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

_CODES = {"bool": "?", "int8": "b", "uint8": "B", "int32": "i", "uint32": "I", "float32": "f"}
_ALIGNMENT = 16  # of vectors: TFLite reads constants in place


class Scalar(NamedTuple):
    """A number as a field of a table; one that has its default may be left out by whoever builds the table."""

    kind: str
    number: float


Value: TypeAlias = "Scalar | str | NDArray[Any] | Fields | Sequence[Fields | str]"
Fields: TypeAlias = Mapping[int, Value]
"""A table: number of a field -> a scalar, text, an array (a vector), a table or a list of tables or of texts."""


def write_flatbuffer(root: Fields, identifier: bytes) -> bytes:
    """Return the buffer of a root table; `identifier` are the four bytes that tell its schema."""
    writer = _Writer(identifier)
    writer.link(0, writer.table(root))
    writer.write_vectors()
    return bytes(writer.out)


class _Vector(NamedTuple):
    """What several tables may point to: a length, the content, and a multiple of bytes at which that lies."""

    length: int
    content: bytes
    alignment: int


class _Writer:
    def __init__(self, identifier: bytes) -> None:
        self.out = bytearray(4) + identifier
        self.vtables: dict[bytes, int] = {}
        self.vectors: dict[_Vector, list[int]] = {}

    def link(self, place: int, target: int) -> None:
        """Store at `place` how far ahead `target` is."""
        struct.pack_into("<I", self.out, place, target - place)

    def align(self, size: int, ahead: int = 0) -> None:
        """Fill up so that what follows after `ahead` more bytes lies at a multiple of `size`."""
        self.out.extend(bytes(-(len(self.out) + ahead) % size))

    def table(self, fields: Fields) -> int:
        """Write a table and all that it points to; returns its place."""
        offsets, size = [0] * (max(fields, default=-1) + 1), 4
        for field, value in sorted(fields.items(), key=lambda item: -_width(item[1])):
            offsets[field], size = size, size + _width(value)
        layout = struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), size, *offsets)
        if layout not in self.vtables:
            self.align(2)
            self.vtables[layout] = len(self.out)
            self.out += layout
        self.align(4)
        place = len(self.out)
        self.out += struct.pack("<i", place - self.vtables[layout]) + bytes(size - 4)
        for field, value in fields.items():
            at = place + offsets[field]
            if isinstance(value, Scalar):
                struct.pack_into(f"<{_CODES[value.kind]}", self.out, at, value.number)
            elif isinstance(value, Mapping):
                self.link(at, self.table(value))
            elif isinstance(value, str | np.ndarray):
                self.vectors.setdefault(_pack(value), []).append(at)
            else:
                self.link(at, self.sequence(value))
        return place

    def sequence(self, values: Sequence[Fields | str]) -> int:
        """Write a list of tables, or of texts; returns its place."""
        start = self.vector(_Vector(len(values), bytes(4 * len(values)), 4))
        for index, value in enumerate(values):
            at = start + 4 + 4 * index
            if isinstance(value, str):
                self.vectors.setdefault(_pack(value), []).append(at)
            else:
                self.link(at, self.table(value))
        return start

    def vector(self, vector: _Vector) -> int:
        """Write a count and what is counted; returns the place."""
        self.align(4)
        self.align(vector.alignment, 4)
        start = len(self.out)
        self.out += struct.pack("<I", vector.length) + vector.content
        return start

    def write_vectors(self) -> None:
        """Write what the tables point to, and link it."""
        for vector, places in self.vectors.items():
            start = self.vector(vector)
            for place in places:
                self.link(place, start)


def _pack(value: str | NDArray[Any]) -> _Vector:
    if isinstance(value, str):
        content = value.encode()
        return _Vector(len(content), content + b"\0", 4)
    little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    is_large = little.nbytes >= _ALIGNMENT or little.dtype == np.uint8
    return _Vector(little.size, little.tobytes(), _ALIGNMENT if is_large else max(4, little.itemsize))


def _width(value: Value) -> int:
    """Return the bytes of a field inside its table."""
    return struct.calcsize(_CODES[value.kind]) if isinstance(value, Scalar) else 4
