"""Where the metadata of HDF5's oldest format lies, which h5py and Keras write and which carries no checksums.

Object headers of version 1 and what they point to: B-trees and symbol tables of groups, local heaps, B-trees of chunks;
and the heaps of texts. Metadata of later versions is left out but for the start of its headers: checksums guard it.
Source: HDF5 File Format Specification 3.0, sections II, III.A.1, III.B to III.E and IV.A.1.a.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from . import RefusalError

NOWHERE = 2**64 - 1
BLOCK_LIMIT = 200_000
_CONTINUATION, _SYMBOL_TABLE, _LAYOUT = 0x10, 0x11, 0x08
_CHUNKED = 2
_HEAP_OF_TEXTS = b"GCOL\x01\0\0\0"


class Extent(NamedTuple):
    """Bytes start to end of the file, and what they hold."""

    start: int
    end: int
    what: str


class Superblock(NamedTuple):
    """What the beginning of the file says: its version, how long it is, and how wide B-trees are (HDF5's defaults)."""

    version: int
    size: int
    leaf_branching: int = 4
    branching: int = 16
    chunk_branching: int = 32


def read_superblock(file: BinaryIO) -> Superblock:
    """Read the superblock at the file's start; offsets and lengths have 8 bytes, as in every file of h5py's."""
    start = _read(file, 0, 32)
    version = start[8]
    sizes = start[9:11] if version >= 2 else start[13:15]
    if sizes != b"\x08\x08":
        raise RefusalError(
            f"expected offsets and lengths of 8 bytes, found {sizes.hex(' ')}; the file is damaged or was written in "
            "an unusual way"
        )
    if version >= 2:
        return Superblock(version, 48)
    leaf, internal = struct.unpack_from("<2H", start, 16)
    if version == 0:
        return Superblock(version, 96, leaf, internal)
    return Superblock(version, 100, leaf, internal, *struct.unpack_from("<H", start, 24))


def find_metadata(
    file: BinaryIO, superblock: Superblock, headers: Iterable[tuple[int, str]]
) -> tuple[list[Extent], bool]:
    """Return the extents of all that belongs to the objects whose headers are at the addresses given, with names.

    Also say whether that is all: not where a header, or an index of chunks, has a later version.
    """
    walk = _Walk(file, superblock)
    walk.add(0, superblock.size, "the file's first bytes")
    for address, name in headers:
        walk.add_object(address, f"the description of {name}")
    return walk.extents, walk.is_complete


def find_text_heaps(file: BinaryIO, size: int) -> Iterator[Extent]:
    """Return the extents of the heaps of texts of variable length; these begin anywhere."""
    position, before = 0, b""
    while position < size:
        file.seek(position)
        part = file.read(2**20)
        if not part:
            return
        block = before + part
        found = block.find(_HEAP_OF_TEXTS)
        while found >= 0:
            place = position - len(before) + found
            (length,) = struct.unpack("<Q", _read(file, place + 8, 8))
            yield Extent(place, place + length, "a heap of texts")
            found = block.find(_HEAP_OF_TEXTS, found + 1)
        before = block[-len(_HEAP_OF_TEXTS) + 1 :]
        position += len(part)


class _Walk:
    def __init__(self, file: BinaryIO, superblock: Superblock) -> None:
        self.file = file
        self.superblock = superblock
        self.extents: list[Extent] = []
        self.is_complete = superblock.version < 2

    def add(self, start: int, length: int, what: str) -> None:
        self.extents.append(Extent(start, start + length, what))
        if len(self.extents) > BLOCK_LIMIT:
            raise RefusalError(f"{what}: expected at most {BLOCK_LIMIT} blocks of metadata, found more")

    def add_object(self, address: int, what: str) -> None:
        prefix = _read(self.file, address, 16)
        if prefix.startswith(b"OHDR"):
            widths = 1 << (prefix[5] & 3)
            place = 6 + 16 * bool(prefix[5] & 32) + 4 * bool(prefix[5] & 16)
            length = int.from_bytes(_read(self.file, address + place, widths), "little")
            self.add(address, place + widths + length + 4, what)
            self.is_complete = False
            return
        if prefix[0] != 1:
            raise RefusalError(f"{what}: expected an object header of version 1 or 2, found {prefix[0]}")
        length = int.from_bytes(prefix[8:12], "little")
        self.add(address, 16 + length, what)
        blocks = [(address + 16, length)]
        while blocks:
            start, length = blocks.pop()
            content = _read(self.file, start, length)
            place = 0
            while place + 8 <= length:
                kind, size = struct.unpack_from("<2H", content, place)
                message = content[place + 8 : place + 8 + size]
                place += 8 + size
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<2Q", message))
                    self.add(*blocks[-1], what)
                elif kind == _SYMBOL_TABLE:
                    tree, heap = struct.unpack_from("<2Q", message)
                    self.add_heap(heap, what)
                    self.add_tree(tree, 0, 8, what)
                elif kind == _LAYOUT and message[:2] == bytes([3, _CHUNKED]):
                    (tree,) = struct.unpack_from("<Q", message, 3)
                    if tree != NOWHERE:
                        self.add_tree(tree, 1, 8 + 8 * message[2], what)
                elif kind == _LAYOUT and message[0] != 3:
                    self.is_complete = False

    def add_heap(self, address: int, what: str) -> None:
        header = _read(self.file, address, 32)
        if header[:4] != b"HEAP":
            raise RefusalError(f"{what}: expected a heap of names at {address}, found other bytes")
        size, _, place = struct.unpack_from("<3Q", header, 8)
        self.add(address, 32, what)
        self.add(place, size, what)

    def add_tree(self, address: int, kind: int, key_size: int, what: str) -> None:
        branching = self.superblock.chunk_branching if kind else self.superblock.branching
        waiting = [address]
        while waiting:
            place = waiting.pop()
            header = _read(self.file, place, 24)
            if header[:4] != b"TREE" or header[4] != kind:
                raise RefusalError(f"{what}: expected a B-tree at {place}, found other bytes")
            level, used = header[5], int.from_bytes(header[6:8], "little")
            if used > 2 * branching:
                raise RefusalError(f"{what}: expected at most {2 * branching} entries in a B-tree, found {used}")
            self.add(place, 24 + key_size + 2 * branching * (key_size + 8), what)
            content = _read(self.file, place + 24, used * (key_size + 8))
            children = [struct.unpack_from("<Q", content, i * (key_size + 8) + key_size)[0] for i in range(used)]
            if level:
                waiting.extend(children)
            elif kind == 0:
                for child in children:
                    self.add(child, 8 + 2 * self.superblock.leaf_branching * 40, what)


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    content = file.read(count)
    if len(content) != count:
        raise RefusalError(f"expected {count} bytes at {place}, found {len(content)}; the file is damaged or truncated")
    return content
