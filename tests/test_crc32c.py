"""CRC-32C against the examples of RFC 3720 and the definition, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimobile.formats.tensorflow.crc32c import POLYNOMIAL, crc32c, unmask

READ_COMMAND = "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000"


def by_definition(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (bytes.fromhex(READ_COMMAND), 0xD9963A56),
        (b"", 0),
        (b"a", 0xC1D04330),
    ],
)
def test_the_examples_of_rfc_3720(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@given(st.binary(max_size=300))
def test_any_length_gives_what_the_definition_gives(data: bytes) -> None:
    assert crc32c(data) == by_definition(data)


@pytest.mark.parametrize("size", [2**18 - 1, 2**18, 2**18 + 1, 2**19 + 4099])
def test_pieces_are_joined(size: int) -> None:
    data = np.random.default_rng(size).integers(256, size=size, dtype=np.uint8)
    table = [by_definition_of_byte(index) for index in range(256)]
    register = 0xFFFFFFFF
    for byte in data.tolist():
        register = register >> 8 ^ table[(register ^ byte) & 255]
    assert crc32c(data.data) == register ^ 0xFFFFFFFF


def by_definition_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


def test_the_mask_is_leveldb_s() -> None:
    def mask(crc: int) -> int:
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32

    for crc in (0, 1, 0xE3069283, 0xFFFFFFFF):
        assert unmask(mask(crc)) == crc
