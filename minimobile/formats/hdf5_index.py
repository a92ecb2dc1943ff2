"""What minimobile appends to the HDF5 files that it writes: what is in them and where, and a checksum over every byte.

HDF5 allows bytes behind its own. With them a file is read as safetensors are: without the HDF5 library, and so without
a child process. A file that any program has changed since has lost them, or their checksum, and is read as any other.

Layout: the HDF5 file; JSON {"attributes": {path: {name: value}}, "arrays": {path: [type, shape, offset]}}; its length
(8 bytes, little-endian); SHA-256 of all bytes before; `MAGIC`.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.hdf5_process import MESSAGE_LIMIT, Contents, parse_table
from minimobile.storage.files import open_regular, read_limited, regular_file_size
from minimobile.storage.strict_json import parse_json_object

MAGIC = b"minimobile index"
_TAIL = struct.Struct("<Q32s16s")


def make_index(
    image: bytes | memoryview,
    attributes: Mapping[str, Mapping[str, str | int]],
    table: Mapping[str, tuple[str, list[int], int]],
) -> bytes:
    """Return what goes behind the HDF5 file `image`; `table` is {path: (type, shape, offset of its bytes)}."""
    text = json.dumps({"attributes": attributes, "arrays": table}, separators=(",", ":")).encode("ascii")
    head = text + struct.pack("<Q", len(text))
    checksum = hashlib.sha256(image)
    checksum.update(head)
    return head + checksum.digest() + MAGIC


def has_index(path: Path) -> bool:
    """Say whether the file at `path` ends in an index, right or wrong."""
    size = regular_file_size(path)
    if size < _TAIL.size:
        return False
    with open_regular(path) as file:
        file.seek(size - len(MAGIC))
        return file.read(len(MAGIC)) == MAGIC


def read_index(path: Path) -> Contents | None:
    """Return what a file holds that ends in an index; None where it has none, or the checksum does not fit.

    An index that says what cannot be raises FormatError: its checksum is right, so somebody meant it.
    """
    if not has_index(path):
        return None
    content = memoryview(read_limited(path, regular_file_size(path)))
    length, checksum, _ = _TAIL.unpack(content[-_TAIL.size :])
    if hashlib.sha256(content[: 8 - _TAIL.size]).digest() != checksum:
        return None
    end = len(content) - _TAIL.size - length
    where = f"{path}: index"
    if end <= 0 or length > MESSAGE_LIMIT:
        raise FormatError(f"{where}: expected it to have at most {MESSAGE_LIMIT} bytes, found {length}")
    values = parse_json_object(bytes(content[end : end + length]), where)
    try:
        table = parse_table({name: row[:2] for name, row in values["arrays"].items()}, len(content), where)
        offsets = {name: int(row[2]) for name, row in values["arrays"].items()}
        attributes = {"": {}} | {name: dict(pairs) for name, pairs in values["attributes"].items()}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{where}: expected attributes and arrays, found others") from None
    arrays = {}
    taken = 0
    for name in sorted(offsets, key=lambda name: (offsets[name], math.prod(table[name][1]))):
        kind, shape = table[name]
        count = math.prod(shape)
        start, stop = offsets[name], offsets[name] + count * kind.itemsize
        if not taken <= start <= stop <= end:
            raise FormatError(f"{where}: {name[:100]}: expected bytes of its own in the file, found {start} to {stop}")
        taken = stop
        arrays[name] = np.frombuffer(content, kind, count, start).reshape(shape)
    return Contents(attributes, table, arrays)
