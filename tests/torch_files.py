"""PyTorch's files written opcode by opcode: they need no torch, and hold what it never would write."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

from minimobile.formats.pytorch import pytorch

# A hand-written pickle, opcode by opcode, so that these tests need no torch and can write what it never would.
PROTO, STOP, MARK, REDUCE = b"\x80\x02", b".", b"(", b"R"
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(*values: int) -> bytes:
    return MARK + b"".join(map(number, values)) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage", more: bytes = b"") -> bytes:
    pid = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count)
    return MARK + pid + more + b"tQ"


def tensor(view: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], more: bytes = b"") -> bytes:
    arguments = view + number(offset) + numbers(*shape) + numbers(*strides) + b"\x89" + ORDERED + more
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + MARK + arguments + b"t" + REDUCE


def state(**entries: bytes) -> bytes:
    return ORDERED + MARK + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def zipped(body: bytes, data: dict[str, bytes], **more: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + body + STOP)
        for name, content in {**{f"data/{key}": value for key, value in data.items()}, **more.get("add", {})}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def legacy(body: bytes, keys: list[str], data: bytes) -> bytes:
    parts = [pytorch.LEGACY_MAGIC, pytorch.LEGACY_PROTOCOL, {"little_endian": True}]
    start = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return start + PROTO + body + STOP + pickle.dumps(keys, protocol=2) + data


VALUES = np.arange(6, dtype="<f4")
DATA = VALUES.tobytes()
PLAIN = tensor(storage("0", 6), 0, (2, 3), (3, 1))
GOOD = state(**{"a.weight": PLAIN})


def wrapped(**entries: bytes) -> bytes:
    return b"}" + MARK + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def small_files() -> dict[str, bytes]:
    older = state(a=tensor(storage("0", 6, more=b"N"), 0, (2, 3), (3, 1)))
    return {"zip": zipped(GOOD, {"0": DATA}), "older": legacy(older, ["0"], struct.pack("<q", 6) + DATA)}
