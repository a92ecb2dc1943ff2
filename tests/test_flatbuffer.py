"""FlatBuffers: what was written is read, and no offset is followed unchecked (H25, H26)."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from flatbuffer_files import write_flatbuffer

from minimobile.errors import FormatError
from minimobile.formats.tflite.flatbuffer import VISITS, FlatBuffer

CONTENT = write_flatbuffer(
    {
        0: ("int32", -5),
        1: "häß",
        2: np.arange(3, dtype=np.float32),
        3: [{0: ("uint8", 7)}, {}],
        5: {1: ("int64", 2**40)},
        6: ("bool", True),
    },
    b"TEST",
)


def open_root(content=CONTENT):
    return FlatBuffer(content, "here").root(b"TEST")


def read_all(content):
    root = open_root(content)
    return (
        root.number(0, "int32"), root.string(1), root.numbers(2, "float32"),
        [table.number(0, "uint8") for table in root.tables(3)], root.table(5).number(1, "int64"),
        root.number(6, "bool"),
    )  # fmt: skip


def test_what_was_written_is_read():
    assert read_all(CONTENT) == (-5, "häß", (0.0, 1.0, 2.0), [7, 0], 2**40, True)
    root = open_root()
    assert (root.number(4, "int32", 9), root.string(99), root.vector(99, "int8"), root.table(4)) == (9, "", None, None)
    assert root.tables(99) == []


def position_of(field):
    """Return where a field of the root table is."""
    table = struct.unpack_from("<I", CONTENT)[0]
    vtable = table - struct.unpack_from("<i", CONTENT, table)[0]
    return table, vtable, table + struct.unpack_from("<H", CONTENT, vtable + 4 + 2 * field)[0]


def patched(place, form, value):
    content = bytearray(CONTENT)
    struct.pack_into(form, content, place, value)
    return bytes(content)


TABLE, VTABLE, _ = position_of(0)
STRING, VECTOR, CHILD = (position_of(field)[2] for field in (1, 2, 5))
DAMAGE = {
    "nothing": (b"", "identifier"),
    "H25's eight bytes": (b"\x18\0\0\0TEST", "offset into the file"),
    "another identifier": (CONTENT.replace(b"TEST", b"TSET"), "identifier"),
    "root outside": (patched(0, "<I", 2**31), "offset into the file"),
    "root at itself": (patched(0, "<I", 0), "offset into the file"),
    "root off its place": (patched(0, "<I", TABLE + 2), "multiple of 4"),
    "vtable before the file": (patched(TABLE, "<i", 2**30), "inside the file"),
    "vtable behind the file": (patched(TABLE, "<i", -(2**30)), "inside the file"),
    "vtable off its place": (patched(TABLE, "<i", TABLE - VTABLE + 1), "multiple of 2"),
    "vtable too long": (patched(VTABLE, "<H", 65534), "inside the file"),
    "vtable too short": (patched(VTABLE, "<H", 2), "expected a table"),
    "vtable of odd size": (patched(VTABLE, "<H", 9), "expected a table"),
    "table too long": (patched(VTABLE + 2, "<H", 65535), "inside the file"),
    "field outside its table": (patched(VTABLE + 4, "<H", 60000), "field 0 inside its table"),
    "field over the vtable's offset": (patched(VTABLE + 4, "<H", 2), "field 0 inside its table"),
    "field off its place": (patched(VTABLE + 4, "<H", 9), "multiple of 4"),
    "string outside": (patched(STRING, "<I", 2**32 - 1), "offset into the file"),
    "child outside": (patched(CHILD, "<I", len(CONTENT)), "offset into the file"),
    "vector of 2^31 numbers": (
        patched(VECTOR + struct.unpack_from("<I", CONTENT, VECTOR)[0], "<I", 2**31), "inside the file"),
    "string of 2^32 - 1 bytes": (
        patched(STRING + struct.unpack_from("<I", CONTENT, STRING)[0], "<I", 2**32 - 1), "inside the file"),
    "string without its zero": (
        patched(STRING + struct.unpack_from("<I", CONTENT, STRING)[0], "<I", 3), "a zero after it"),
    "string that is no text": (CONTENT.replace("häß".encode(), b"\xff\xfe\xff\xfe\xff"), "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused(case):
    content, message = DAMAGE[case]
    with pytest.raises(FormatError, match=rf"^here: .*{message}"):
        read_all(content)


def test_every_truncation_is_refused():
    for end in range(len(CONTENT) - 1):
        try:
            found = read_all(CONTENT[:end])
        except FormatError:
            continue
        assert found == read_all(CONTENT), end


def test_parts_that_are_shared_a_million_times_run_into_the_budget():
    count = 2 * VISITS
    out = bytearray(write_flatbuffer({0: [{}]}, b"TEST"))
    out += bytes(-len(out) % 4)
    vector, shared = len(out), len(out) + 4 + 4 * count
    places = np.arange(vector + 4, shared, 4, dtype=np.uint32)
    out += struct.pack("<I", count) + (shared + 4 - places).tobytes() + struct.pack("<HHi", 4, 4, 4)
    root = struct.unpack_from("<I", out)[0]
    vtable = root - struct.unpack_from("<i", out, root)[0]
    field = root + struct.unpack_from("<H", out, vtable + 4)[0]
    struct.pack_into("<I", out, field, vector - field)
    with pytest.raises(FormatError, match="at most 200000 values"):
        open_root(bytes(out)).tables(0)
