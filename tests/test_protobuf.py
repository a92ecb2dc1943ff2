"""The wire format of protocol buffers, against the examples of its specification."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimobile.errors import MinimobileError
from minimobile.formats.protobuf import DEPTH_LIMIT, fields, read_text, read_varints, signed


def read(content: bytes, depth: int = 0) -> list[tuple[int, int, object]]:
    found = fields(memoryview(content), "x.pb", depth)
    return [(number, kind, bytes(value) if isinstance(value, memoryview) else value) for number, kind, value in found]


def test_the_specification_s_examples() -> None:
    assert read(bytes.fromhex("089601")) == [(1, 0, 150)]
    assert read(bytes.fromhex("120774657374696e67")) == [(2, 2, b"testing")]
    assert read(bytes.fromhex("1a03089601")) == [(3, 2, bytes.fromhex("089601"))]
    assert read(bytes.fromhex("08feffffffffffffffff01")) == [(1, 0, 2**64 - 2)]
    assert list(read_varints(memoryview(bytes.fromhex("038e029ea705")), "x.pb")) == [3, 270, 86942]
    assert read(bytes.fromhex("0d0000803f") + bytes.fromhex("11000000000000f03f")) == [
        (1, 5, 0x3F800000),
        (2, 1, 0x3FF0000000000000),
    ]


@given(st.integers(-(2**63), 2**63 - 1))
def test_negative_numbers_are_two_s_complement(number: int) -> None:
    rest, content = number % 2**64, bytearray()
    while rest >= 0x80:
        content.append(rest & 0x7F | 0x80)
        rest >>= 7
    content.append(rest)
    assert [signed(found) for found in read_varints(memoryview(bytes(content)), "x.pb")] == [number]


def test_text() -> None:
    assert read_text(memoryview("Käse".encode()), "x.pb") == "Käse"
    for value in (memoryview(b"\xff"), 3):
        with pytest.raises(MinimobileError, match=r"expected .*text"):
            read_text(value, "x.pb")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("08", "a variable-length number has no end"),
        ("0880", "a variable-length number has no end"),
        ("08" + "80" * 10 + "01", "at most 64 bits"),
        ("08" + "ff" * 9 + "02", "at most 64 bits"),
        ("00", "field number"),
        ("ffffffffff01", "field number"),
        ("0b", "wire type"),
        ("0c", "wire type"),
        ("0f", "wire type"),
        ("12ffffffffffffffffff01", "claims 18446744073709551615 bytes of the 0 left"),
        ("0d000000", "claims 4 bytes of the 3 left"),
    ],
)
def test_damage_is_named(content: str, match: str) -> None:
    with pytest.raises(MinimobileError, match=f"^x.pb: .*{match}"):
        read(bytes.fromhex(content))


def test_messages_may_not_nest_without_end() -> None:
    assert read(b"", DEPTH_LIMIT) == []
    with pytest.raises(MinimobileError, match="nested at most 100 deep"):
        read(b"", DEPTH_LIMIT + 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(MinimobileError):
        assert sum(1 for _ in read(content)) <= len(content)
