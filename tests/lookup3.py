"""Bob Jenkins' hash lookup3 ("hashlittle"), the checksum of HDF5's metadata: for tests that change it."""

from __future__ import annotations

import struct

MASK = 2**32 - 1
MIX = ((4, 0, 2, 1), (6, 1, 0, 2), (8, 2, 1, 0), (16, 0, 2, 1), (19, 1, 0, 2), (4, 2, 1, 0))
FINISH = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))


def rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & MASK


def lookup3(key: bytes) -> int:
    """Return the hash of `key` with the initial value 0, as HDF5 uses it."""
    state = [(0xDEADBEEF + len(key)) & MASK] * 3
    while key:
        block, key = key[:12].ljust(12, b"\0"), key[12:]
        state = [(old + new) & MASK for old, new in zip(state, struct.unpack("<3I", block), strict=True)]
        if key:
            for bits, target, source, more in MIX:
                state[target] = (state[target] - state[source] ^ rotate(state[source], bits)) & MASK
                state[source] = (state[source] + state[more]) & MASK
        else:
            for target, source, bits in FINISH:
                state[target] = ((state[target] ^ state[source]) - rotate(state[source], bits)) & MASK
    return state[2]
