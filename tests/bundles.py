"""A writer of TensorFlow's checkpoints, small enough to write what TensorFlow never would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minimobile.formats.tensorflow.crc32c import crc32c

MAGIC = bytes.fromhex("57fb808b247547db")
TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "float16": 19}
Message = dict[int, Any]


def varint(number: int) -> bytes:
    number %= 2**64
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(values: Message) -> bytes:
    """Encode {field number: integer, bytes, message, or a list of them}; ("fixed32", n) is four bytes."""
    out = b""
    for number, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, tuple):
                out += varint(number << 3 | 5) + item[1].to_bytes(4, "little")
            elif isinstance(item, int):
                out += varint(number << 3) + varint(item)
            else:
                content = message(item) if isinstance(item, dict) else item
                out += varint(number << 3 | 2) + varint(len(content)) + content
    return out


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def block(entries: list[tuple[bytes, bytes]], restarts: int | None = None) -> bytes:
    """Encode entries with shared prefixes; `restarts` is the number of restart points that the block claims."""
    out, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + bytes(4) + (1 if restarts is None else restarts).to_bytes(4, "little")


def sealed(content: bytes, compression: int = 0) -> bytes:
    """Add a block's trailer."""
    typed = content + bytes([compression])
    return typed + masked(typed).to_bytes(4, "little")


def table(entries: list[tuple[bytes, bytes]], per_block: int = 8, **block_options: Any) -> bytes:
    """Encode a whole sorted table."""
    out, index = b"", []
    compression = block_options.pop("compression", 0)
    for start in range(0, len(entries), per_block):
        part = entries[start : start + per_block]
        content = block(part, **block_options)
        index.append((part[-1][0], varint(len(out)) + varint(len(content))))
        out += sealed(content, compression)
    return closed(out, index)


def closed(blocks: bytes, index: list[tuple[bytes, bytes]]) -> bytes:
    """Add the blocks that list the others, and the footer."""
    filters, places = block([]), block(index)
    handles = varint(len(blocks)) + varint(len(filters))
    blocks += sealed(filters)
    handles += varint(len(blocks)) + varint(len(places))
    return blocks + sealed(places) + handles.ljust(40, b"\0") + MAGIC


def write_bundle(
    prefix: Path,
    arrays: Mapping[str, Any],
    *,
    shards: int = 1,
    header: Message | None = None,
    change: Callable[[str, Message], Message] = lambda name, entry: entry,
    more: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write a checkpoint whose arrays are dealt out to the shards; `change` may falsify what the index says of one."""
    data = [b""] * shards
    entries = {b"": message({1: shards, 3: {1: 1}} if header is None else header), **(more or {})}
    for number, name in enumerate(sorted(arrays)):
        values = np.asarray(arrays[name])
        content = values.tobytes()
        shard = number % shards
        fields = {
            1: TYPES[values.dtype.name],
            2: {2: [{1: size} for size in values.shape]},
            3: shard,
            4: len(data[shard]),
            5: len(content),
            6: ("fixed32", masked(content)),
        }
        data[shard] += content
        entries[name.encode()] = message(change(name, fields))
    for number, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{shards:05d}").write_bytes(content)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(sorted(entries.items())))
