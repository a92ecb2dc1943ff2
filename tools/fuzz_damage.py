"""Ways to damage a file for `fuzz.py`: by bytes, and by the objects of its format."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

ODD = (0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 2**64 - 1, 255, 65_535)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"))
Random = np.random.Generator


def damage_bytes(content: bytes, random: Random) -> bytes:
    """Flip bits, overwrite numbers, cut, drop, double or exchange parts."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        if not data:
            break
        place, size = int(random.integers(len(data))), int(random.choice([1, 2, 4, 8, 16, 200]))
        kind = int(random.integers(8))
        if kind <= 2:
            data[place] ^= 1 << int(random.integers(8))
        elif kind == 3:
            width = min(size, 8)
            number = int(ODD[random.integers(len(ODD))]) % 2 ** (8 * width)
            data[place : place + width] = number.to_bytes(width, "little")
        elif kind == 4:
            del data[place : place + size]
        elif kind == 5:
            data[place:place] = data[place : place + size]
        elif kind == 6:
            other = int(random.integers(len(data)))
            data[place : place + size] = data[other : other + size]
        elif random.random() < 0.2:
            del data[place:]
    return bytes(data)


def damage_json(text: bytes, random: Random) -> bytes:
    """Change a value somewhere in a JSON document, at the level of objects."""
    root = json.loads(text)
    holders: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in pairs:
            holders.append((value, key))
            visit(item)

    visit(root)
    texts = ("", "x" * 300, "\x00")
    choices: list[Any] = [*ODD, *FLOATS[:4], *texts, None, True, [], {}, [[[]]], 10**400, {"a": {"b": []}}, -0.5]
    for _ in range(int(random.integers(1, 3))):
        holder, key = holders[random.integers(len(holders))]
        kind = int(random.integers(5))
        if kind == 0 and isinstance(holder, dict):
            holder.pop(key, None)
        elif kind == 1 and isinstance(holder, dict):
            holder[str(key) + "x"] = holder.get(key)
        elif kind == 2:
            other, place = holders[random.integers(len(holders))]
            if isinstance(holder, dict) or key < len(holder):
                holder[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else (other[place:] or [0])[0])
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = choices[random.integers(len(choices))]
    return json.dumps(root, allow_nan=True).encode()


def damage_address(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Change up to three bits of one byte of an address in an HDF5 file, of whatever it is."""
    places = [
        place
        for place in range(0, min(len(content) - 8, 200_000), 4)
        if 48 <= struct.unpack_from("<Q", content, place)[0] < len(content)
    ]
    data, place = bytearray(content), int(places[random.integers(len(places))])
    for _ in range(int(random.integers(1, 4))):
        data[place + int(random.integers(3))] ^= 1 << int(random.integers(8))
        if random.random() < 0.7:
            break
    return bytes(data), True


def damage_array_address(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Flip one bit of the address of an array of the oldest HDF5 format: no other numbers may come of it."""
    places = []
    place = content.find(b"\x03\x01", 0)
    while place >= 0 and place + 18 <= len(content):  # a data layout message: version 3, contiguous, address, size
        address, size = struct.unpack_from("<2Q", content, place + 2)
        if 48 <= address < len(content) and 0 < size <= len(content) - address:
            places.append(place + 2)
        place = content.find(b"\x03\x01", place + 1)
    data, chosen = bytearray(content), int(places[random.integers(len(places))])
    bit = int(random.integers(len(content).bit_length()))
    data[chosen + bit // 8] ^= 1 << bit % 8
    return bytes(data), False


def damage_tflite(writer: Any, random: Random) -> Any:
    """Change numbers, vectors, texts and references in a `TFLiteWriter`'s tables; drop, double and exchange tables."""
    writer = copy.deepcopy(writer)
    often = [writer.tensors, writer.operators]
    lists: list[list[Any]] = [*often, *often, writer.buffers, writer.codes]
    for _ in range(int(random.integers(1, 4))):
        tables = lists[random.integers(len(lists))]
        kind = int(random.integers(10))
        index = int(random.integers(len(tables)))
        if kind == 0:
            del tables[index]
        elif kind == 1:
            tables.insert(index, copy.deepcopy(tables[random.integers(len(tables))]))
        elif kind == 2:
            other = int(random.integers(len(tables)))
            tables[index], tables[other] = tables[other], tables[index]
        else:
            _damage_table(tables[index], random)
        if not tables:
            break
    if random.random() < 0.1:
        writer.outputs = [int(random.integers(-1, len(writer.tensors) + 2))]
    return writer


def _damage_table(fields: dict[int, Any], random: Random) -> None:
    if not fields:
        return
    field = list(fields)[random.integers(len(fields))]
    value = fields[field]
    if random.random() < 0.1:
        del fields[field]
    elif isinstance(value, dict):
        _damage_table(value, random)
    elif isinstance(value, tuple):
        kind, number = value
        low, high = (0, 1) if kind == "bool" else (-(2**31), 2**31) if kind == "float32" else _limits(kind)
        chosen = ODD[random.integers(len(ODD))] if random.random() < 0.5 else int(number) + int(random.integers(-2, 3))
        fields[field] = (kind, min(max(chosen, low), high))
    elif isinstance(value, np.ndarray) and value.size:
        fields[field] = value = value.copy()
        place = int(random.integers(value.size))
        if value.dtype.kind == "f":
            value.view(np.uint32)[place] ^= 1 << int(random.integers(32))
            if random.random() < 0.3:
                value[place] = FLOATS[random.integers(len(FLOATS))]
        else:
            limits = np.iinfo(value.dtype)
            near = int(value[place]) + int(random.integers(-3, 4))
            chosen = ODD[random.integers(len(ODD))] if random.random() < 0.4 else near
            value[place] = min(max(chosen, int(limits.min)), int(limits.max))
        if random.random() < 0.1:
            fields[field] = value[: int(random.integers(value.size))]
    elif isinstance(value, str):
        fields[field] = value[::-1] if random.random() < 0.5 else ""


def _limits(kind: str) -> tuple[int, int]:
    limits = np.iinfo(kind)
    return int(limits.min), int(limits.max)


def damage_safetensors(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Change the header as JSON, and let its length fit."""
    length = int.from_bytes(content[:8], "little")
    header = damage_json(content[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :], True


def damage_member(name: str, damage: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], tuple[bytes, bool]]:
    """Return the way that changes a member of a zip archive, whose checksums then fit."""

    def way(content: bytes, random: Random) -> tuple[bytes, bool]:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {item.filename: (item, archive.read(item)) for item in archive.infolist()}
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for item, (entry, value) in members.items():  # an entry keeps its date: the same seed makes the same bytes
                archive.writestr(entry, damage(value, random) if item == name else value)
        return out.getvalue(), True

    return way


def damage_graph(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Leave out, double and exchange nodes of a graph, or change bytes within one under a right length."""
    nodes = [part for _, part in _split_fields(content)]
    for _ in range(int(random.integers(1, 4))):
        kind, index, other = int(random.integers(6)), int(random.integers(len(nodes))), int(random.integers(len(nodes)))
        if kind == 0:
            del nodes[index]
        elif kind == 1:
            nodes.insert(index, nodes[other % len(nodes)])
        elif kind == 2:
            nodes[index], nodes[other] = nodes[other], nodes[index]
        else:
            nodes[index] = damage_bytes(nodes[index], random)
    return b"".join(b"\x0a" + _varint(len(node)) + node for node in nodes), True


def damage_protobuf(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Leave out, double and exchange fields of any message of a model, or change bytes in one under right lengths."""
    return _damage_message(content, random, 4), True


def _damage_message(content: bytes, random: Random, depth: int) -> bytes:
    try:
        parts = _split_fields(content)
    except (IndexError, ValueError):
        parts = []
    if not parts or depth == 0:
        return damage_bytes(content, random) if content else b"\x00"
    kind, index, other = int(random.integers(8)), int(random.integers(len(parts))), int(random.integers(len(parts)))
    if kind == 0:
        del parts[index]
    elif kind == 1:
        parts.insert(index, parts[other])
    elif kind == 2:
        parts[index], parts[other] = parts[other], parts[index]
    elif kind == 3:
        number, _ = parts[index]
        parts[index] = number, int(random.choice(ODD)) % 2**64
    else:
        longest = max(range(len(parts)), key=lambda at: len(parts[at][1]) if isinstance(parts[at][1], bytes) else 0)
        at = longest if kind > 5 else index
        number, value = parts[at]
        parts[at] = number, _damage_message(value, random, depth - 1) if isinstance(value, bytes) else value ^ 1
    return b"".join(
        _varint(number << 3 | 2) + _varint(len(value)) + value
        if isinstance(value, bytes)
        else _varint(number << 3) + _varint(value)
        for number, value in parts
    )


def _split_fields(content: bytes) -> list[tuple[int, Any]]:
    """Return number and value (bytes or a number) of each field of a protobuf message; ValueError where it is none."""
    found: list[tuple[int, Any]] = []
    place = 0
    while place < len(content):
        key, place = _read_varint(content, place)
        value, place = _read_varint(content, place)
        if key & 7 == 0:
            found.append((key >> 3, value))
        elif key & 7 == 2 and place + value <= len(content):
            found.append((key >> 3, content[place : place + value]))
            place += value
        else:
            raise ValueError("no message of texts and numbers")
    return found


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
