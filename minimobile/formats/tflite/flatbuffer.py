"""FlatBuffers read in place, every offset checked before it is followed; knows no schema.

Source: "FlatBuffers internals" (binary format of tables, vtables, vectors, strings and unions); all numbers are
little-endian, and every value is aligned to its own size.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError

VISITS = 200_000
"""How many tables, fields and offsets may be looked at: parts of a buffer can be shared, so its size is no limit."""
_BYTES_PER_VISIT = 64
_FORMATS = {
    kind: struct.Struct(f"<{code}")
    for kind, code in {
        "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H",
        "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
    }.items()
}  # fmt: skip


class FlatBuffer:
    """A buffer with the budget for reading it. `where` names the file in errors."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content = content
        self.where = where
        self._visits = VISITS

    def root(self, identifier: bytes) -> Table:
        """Return the root table of a buffer with this file identifier of four bytes."""
        if len(self.content) < 8 or self.content[4:8] != identifier:
            found = self.content[4:8] or self.content
            raise FormatError(f"{self.where}: expected the identifier {identifier!r} at byte 4, found {found!r}")
        return Table(self, self.follow(0))

    def read(self, position: int, kind: str) -> Any:
        """Return the number of a kind ("int32", "float32", "bool", ...) at a position."""
        self.spend(1)
        form = _FORMATS[kind]
        self.check(position, form.size, form.size)
        if kind == "bool":
            return self.content[position] != 0
        return form.unpack_from(self.content, position)[0]

    def follow(self, position: int) -> int:
        """Return where the offset at a position leads: forwards, and inside the buffer."""
        offset = self.read(position, "uint32")
        if offset == 0 or position + offset + 4 > len(self.content):
            self.fail(position, "an offset into the file", f"{offset}")
        return int(position + offset)

    def check(self, position: int, size: int, alignment: int) -> None:
        """Refuse what lies outside the buffer or is not aligned."""
        if position < 0 or size < 0 or position + size > len(self.content):
            self.fail(position, f"{size} bytes inside the file", f"a file of {len(self.content)} bytes")
        if position % alignment:
            self.fail(position, f"a position that is a multiple of {alignment}", f"byte {position}")

    def spend(self, visits: int) -> None:
        """Count visits, and refuse a buffer that wants more of them than any sound one of its kind."""
        self._visits -= visits
        if self._visits < 0:
            raise FormatError(f"{self.where}: expected at most {VISITS} values in this file's structure, found more")

    def fail(self, position: int, expected: str, found: str) -> None:
        """Raise the error for something wrong at a position."""
        raise FormatError(f"{self.where}: at byte {position}: expected {expected}, found {found}; the file is damaged")


class Table:
    """A table: numbered fields, each of them there or not."""

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        self._buffer = buffer
        self._position = position
        vtable = position - buffer.read(position, "int32")
        self._vtable = vtable
        self._vtable_size = buffer.read(vtable, "uint16")
        self._size = buffer.read(vtable + 2, "uint16")
        if self._vtable_size < 4 or self._vtable_size % 2 or self._size < 4:
            buffer.fail(position, "a table", f"a vtable of {self._vtable_size} and a table of {self._size} bytes")
        buffer.check(vtable, self._vtable_size, 2)
        buffer.check(position, self._size, 4)

    def number(self, field: int, kind: str, default: Any = 0) -> Any:
        """Return the number in a field."""
        position = self._find(field, _FORMATS[kind].size)
        return default if position is None else self._buffer.read(position, kind)

    def table(self, field: int) -> Table | None:
        """Return the table that a field points to."""
        position = self._find(field, 4)
        return None if position is None else Table(self._buffer, self._buffer.follow(position))

    def tables(self, field: int) -> list[Table]:
        """Return the tables of a vector; none where the field is absent."""
        found = self._find_vector(field, 4)
        if found is None:
            return []
        start, count = found
        self._buffer.spend(count)
        return [Table(self._buffer, self._buffer.follow(start + 4 * index)) for index in range(count)]

    def vector(self, field: int, kind: str) -> NDArray[Any] | None:
        """Return the numbers of a vector as a view of the buffer; None where the field is absent."""
        size = _FORMATS[kind].size
        found = self._find_vector(field, size)
        if found is None:
            return None
        return np.frombuffer(self._buffer.content, np.dtype(kind).newbyteorder("<"), found[1], found[0])

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """Return the numbers of a short vector; none where the field is absent."""
        values = self.vector(field, kind)
        if values is None:
            return ()
        self._buffer.spend(values.size)
        return tuple(values.tolist())

    def string(self, field: int) -> str:
        """Return a string, "" where the field is absent."""
        found = self._find_vector(field, 1)
        if found is None:
            return ""
        start, count = found
        self._buffer.spend(count // _BYTES_PER_VISIT)
        content = self._buffer.content
        if start + count >= len(content) or content[start + count]:
            self._buffer.fail(start, f"a string of {count} bytes with a zero after it", "none")
        try:
            return content[start : start + count].decode("utf-8")
        except UnicodeDecodeError:
            self._buffer.fail(start, "a string in UTF-8", f"{content[start : start + min(count, 20)]!r}")
            raise

    def _find(self, field: int, size: int) -> int | None:
        """Return the position of a field's `size` bytes, None where the table has not got it."""
        entry = 4 + 2 * field
        if entry + 2 > self._vtable_size:
            return None
        offset = self._buffer.read(self._vtable + entry, "uint16")
        if offset == 0:
            return None
        if offset < 4 or offset + size > self._size:
            expected = f"field {field} inside its table of {self._size} bytes"
            self._buffer.fail(self._position, expected, f"it at {offset}")
        return int(self._position + offset)

    def _find_vector(self, field: int, size: int) -> tuple[int, int] | None:
        """Return where a vector's elements of `size` bytes start, and how many there are."""
        position = self._find(field, 4)
        if position is None:
            return None
        start = self._buffer.follow(position)
        count = self._buffer.read(start, "uint32")
        self._buffer.check(start + 4, count * size, size if count else 4)
        return start + 4, count
