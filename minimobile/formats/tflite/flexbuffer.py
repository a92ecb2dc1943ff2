"""FlexBuffers: the map of numbers in which a custom operator of TFLite keeps its options, read in place and written.

Source: "FlexBuffers internals" of FlatBuffers. Offsets lead backwards from where they stand; every one is checked
before it is followed. What is no number or truth value (texts, vectors, maps) is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NoReturn

from minimobile.errors import FormatError

ENTRY_LIMIT = 1000
KEY_LIMIT = 200
_INT, _UINT, _FLOAT, _INDIRECT_INT, _INDIRECT_UINT, _INDIRECT_FLOAT, _MAP, _BOOL = 1, 2, 3, 6, 7, 8, 9, 26
_INDIRECT = {_INDIRECT_INT: _INT, _INDIRECT_UINT: _UINT, _INDIRECT_FLOAT: _FLOAT}
_FORMATS = {
    _INT: {1: "<b", 2: "<h", 4: "<i", 8: "<q"},
    _UINT: {1: "<B", 2: "<H", 4: "<I", 8: "<Q"},
    _FLOAT: {2: "<e", 4: "<f", 8: "<d"},
}
_FORMATS[_BOOL] = _FORMATS[_UINT]
_WIDTH = 4  # bytes of every number that is written

Number = int | float | bool


def read_numbers(content: bytes, where: str) -> dict[str, Number]:
    """Return the numbers and truth values of a buffer whose root is a map, by key.

    Raises FormatError, beginning with `where`, for anything else and for offsets that lead outside.
    """
    return _Reader(content, where).read()


def write_numbers(values: Mapping[str, Number]) -> bytes:
    """Return a buffer whose root is a map of numbers and truth values, four bytes each; keys are sorted.

    >>> read_numbers(write_numbers({"size": 3, "is_wide": True, "scale": 0.5}), "a doctest")
    {'is_wide': True, 'scale': 0.5, 'size': 3}
    """
    keys = sorted(values)
    out, starts = bytearray(), []
    for key in keys:
        starts.append(len(out))
        out += key.encode() + b"\0"
    out += bytes(-len(out) % _WIDTH) + struct.pack("<I", len(keys))
    names = len(out)
    for start in starts:
        out += struct.pack("<I", len(out) - start)
    out += struct.pack("<III", len(out) - names, _WIDTH, len(keys))
    root, types = len(out), bytearray()
    for key in keys:
        value = values[key]
        kind = _BOOL if isinstance(value, bool) else _INT if isinstance(value, int) else _FLOAT
        out += struct.pack(_FORMATS[kind][_WIDTH], value)
        types.append(kind << 2 | _WIDTH.bit_length() - 1)
    out += types + bytes(-len(types) % _WIDTH)
    out += struct.pack("<I", len(out) - root) + bytes([_MAP << 2 | _WIDTH.bit_length() - 1, _WIDTH])
    return bytes(out)


class _Reader:
    def __init__(self, content: bytes, where: str) -> None:
        self.content = content
        self.where = where

    def read(self) -> dict[str, Number]:
        if len(self.content) < 3:
            self.fail("a root of three bytes or more", f"{len(self.content)} bytes")
        width, packed = self.content[-1], self.content[-2]
        root = len(self.content) - 2 - width
        if packed >> 2 != _MAP:
            self.fail("a map at its root", f"type {packed >> 2}")
        start, size = self.follow(root, width), 1 << (packed & 3)
        count = self.number(start - size, size, _UINT)
        keys, key_size = self.follow(start - 3 * size, size), self.number(start - 2 * size, size, _UINT)
        if count > ENTRY_LIMIT or count != self.number(keys - int(key_size), int(key_size), _UINT):
            self.fail(f"at most {ENTRY_LIMIT} entries, each with its key", f"{count}")
        found = {}
        for index in range(int(count)):
            key = self.text(self.follow(keys + index * int(key_size), int(key_size)))
            value = self.value(start + index * size, size, self.byte(start + int(count) * size + index))
            if value is not None:
                found[key] = value
        return found

    def value(self, place: int, size: int, packed: int) -> Number | None:
        """Return a number, followed where it stands elsewhere; None for what is none."""
        kind = packed >> 2
        if kind in _INDIRECT:
            place, size, kind = self.follow(place, size), 1 << (packed & 3), _INDIRECT[kind]
        if kind not in _FORMATS:
            return None
        number = self.number(place, size, kind)
        return bool(number) if kind == _BOOL else number

    def follow(self, place: int, size: int) -> int:
        """Return where the offset at a place leads: backwards, and inside the buffer."""
        offset = int(self.number(place, size, _UINT))
        if not 0 <= place - offset < len(self.content):
            self.fail(f"an offset at byte {place} that leads into its {len(self.content)} bytes", f"{offset}")
        return place - offset

    def number(self, place: int, size: int, kind: int) -> Any:
        """Return the number of a kind in `size` bytes at a place."""
        form = _FORMATS[kind].get(size)
        if form is None or place < 0 or place + size > len(self.content):
            self.fail(f"a number inside its {len(self.content)} bytes", f"one of {size} bytes at byte {place}")
        return struct.unpack_from(form, self.content, place)[0]

    def byte(self, place: int) -> int:
        return int(self.number(place, 1, _UINT))

    def text(self, place: int) -> str:
        """Return the key at a place, which ends in a zero."""
        end = self.content.find(b"\0", place, place + KEY_LIMIT)
        if end < 0:
            self.fail(f"a key of fewer than {KEY_LIMIT} bytes at byte {place}", "none that ends")
        return self.content[place:end].decode("utf-8", "replace")

    def fail(self, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: options: expected {expected}, found {found}; the file is damaged")
