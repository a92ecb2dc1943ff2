"""The checksum of TensorFlow's checkpoints: CRC-32C (Castagnoli), for many words at a time.

Source: RFC 3720, appendix B.4 (polynomial and examples); the masking is LevelDB's (doc/log_format.md and crc32c.h).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78  # bits reversed
PREFIX = b"\x54\x64\x1f\x64"  # takes the register from zero to all ones, where the checksum begins
_LEVELS = 16
_PIECE = 4 << _LEVELS  # bytes; larger pieces fall out of the second-level cache


def crc32c(data: bytes | memoryview) -> int:
    """Return the checksum of contiguous bytes.

    The register after A and B is (the register after A, moved on by as many zeros as B is long) xor (the register after
    B alone), and moving on is linear. So neighbours are joined, pair by pair, until one word is left.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    content = np.frombuffer(data, np.uint8)
    first = content.size % _PIECE
    head = PREFIX + content[:first].tobytes()
    register = _register_after(np.frombuffer(head.rjust(-(-len(head) // 4) * 4, b"\0"), "<u4"))
    for start in range(first, content.size, _PIECE):
        words = content[start : start + _PIECE].view("<u4")
        register = _move_on(register, _LEVELS) ^ _register_after(words)
    return int(register[0]) ^ 0xFFFFFFFF


def unmask(number: int) -> int:
    """Return the checksum that is stored as `number`: LevelDB masks those that lie within what is summed up again."""
    rotated = (number - 0xA282EAD8) % 2**32
    return (rotated >> 17 | rotated << 15) % 2**32


def _register_after(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the register, (1,), after words (N,) that met a register of zero."""
    joined, level = _move_on(words, 0), 0
    while joined.size > 1:
        if joined.size % 2:
            joined = np.concatenate((np.zeros(1, np.uint32), joined))
        joined = _move_on(joined[0::2], level) ^ joined[1::2]
        level += 1
    return joined


def _move_on(registers: NDArray[np.uint32], level: int) -> NDArray[np.uint32]:
    """Return the registers after 4 * 2**level bytes of zeros."""
    tables = _tables(level)
    moved: NDArray[np.uint32] = tables[0][registers & 255]
    for k in range(1, 4):
        moved ^= tables[k][registers >> 8 * k & 255]
    return moved


@functools.cache
def _tables(level: int) -> NDArray[np.uint32]:
    """Return, (4, 256), what becomes of a register with one byte set, for each byte and value."""
    if level:
        return _move_on(_tables(level - 1).reshape(-1), level - 1).reshape(4, 256)
    registers: NDArray[np.uint32] = np.arange(256, dtype=np.uint32) << 8 * np.arange(4, dtype=np.uint32)[:, None]
    for _ in range(32):
        registers = registers >> np.uint32(1) ^ (registers & np.uint32(1)) * np.uint32(POLYNOMIAL)
    return registers
