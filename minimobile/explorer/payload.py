"""The arrays of a page, as one text: base64 of a zlib stream."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Payload:
    """Arrays, one after the other.

    The bytes of each array lie in planes, the first byte of all values first: the exponents of weights are much alike,
    and next to one another they take half as much room.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: NDArray[Any]) -> dict[str, Any]:
        """Append an array and return where it is, for JSON: {"at", "shape", "type"}."""
        plain = np.ascontiguousarray(values)
        place = {"at": self._size, "shape": list(values.shape), "type": str(plain.dtype)}
        part = plain.reshape(-1).view(np.uint8).reshape(-1, plain.itemsize).T.tobytes()
        self._parts.append(part)
        self._size += len(part)
        return place

    def encode(self) -> str:
        """Return all arrays as text."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 6)).decode("ascii")


def find_checksum(values: NDArray[Any]) -> int:
    """Return the CRC-32 of an array's bytes; minus zero counts as zero, and all NaNs as one."""
    if values.dtype == np.float32:
        values = np.where(np.isnan(values), np.float32(np.nan), values) + np.float32(0)
    return zlib.crc32(np.ascontiguousarray(values).tobytes())
