"""The sorted table of keys and values that holds a TensorFlow checkpoint's index: LevelDB's, uncompressed.

Source: LevelDB, doc/table_format.md; tensorflow/core/lib/io/format.cc. TensorFlow never compresses an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.formats.protobuf import read_varint
from minimobile.formats.tensorflow.crc32c import crc32c, unmask
from minimobile.storage.files import open_regular, read_limited, regular_file_size

FOOTER_SIZE = 48  # two handles, padding, magic number
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
SIZE_LIMIT = 2**22  # V2 with all optimiser slots: 100 kB
ENTRY_LIMIT = 20_000
KEY_LIMIT = 1_000  # bytes; a key may repeat the one before for next to nothing
_TRAILER_SIZE = 5  # of a block: compression, checksum
_COMPRESSIONS = {1: "Snappy"}


def recognise(path: Path) -> bool:
    """Say whether the file ends as a sorted table does."""
    size = regular_file_size(path)
    if size < FOOTER_SIZE:
        return False
    with open_regular(path) as file:
        file.seek(size - len(MAGIC))
        return file.read() == MAGIC


def read_table(path: Path) -> dict[bytes, memoryview]:
    """Return all values by key, in the order of the keys; checksums and order are verified."""
    content = memoryview(read_limited(path, SIZE_LIMIT))
    where = str(path)
    if len(content) < FOOTER_SIZE or content[-8:] != MAGIC:
        raise FormatError(
            f"{where}: expected the index of a TensorFlow checkpoint, found a file of {len(content)} bytes without the "
            "mark at its end; it is truncated or something else"
        )
    footer = content[-FOOTER_SIZE:-8]
    _, _, position = _read_handle(footer, 0, where)  # of the filters, which no checkpoint has
    start, size, _ = _read_handle(footer, position, where)
    entries: dict[bytes, memoryview] = {}
    last = None
    end = 0  # of the blocks so far: one that is named twice would be summed up as often as the index likes
    for _, handle in _read_block(content, start, size, where):
        block_start, block_size, _ = _read_handle(handle, 0, where)
        if block_start < end:
            raise FormatError(f"{where}: expected one block after the other, found one at byte {block_start} once more")
        end = block_start + block_size + _TRAILER_SIZE
        for key, value in _read_block(content, block_start, block_size, where):
            if last is not None and key <= last:
                raise FormatError(f"{where}: expected keys in ascending order, found {_show(last)} before {_show(key)}")
            if len(entries) == ENTRY_LIMIT:
                raise FormatError(f"{where}: expected at most {ENTRY_LIMIT} entries, found more")
            entries[key] = value
            last = key
    return entries


def _read_handle(data: memoryview, position: int, where: str) -> tuple[int, int, int]:
    """Return where a block is, its size, and the position behind these two."""
    start, position = read_varint(data, position, where)
    size, position = read_varint(data, position, where)
    return start, size, position


def _read_block(content: memoryview, start: int, size: int, where: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield a block's keys and values. Every key says how much of the one before it repeats."""
    end = start + size
    if end + _TRAILER_SIZE > len(content) - FOOTER_SIZE:
        raise FormatError(f"{where}: expected blocks within {len(content)} bytes, found one of {size} at byte {start}")
    compression = content[end]
    if unmask(int.from_bytes(content[end + 1 : end + _TRAILER_SIZE], "little")) != crc32c(content[start : end + 1]):
        raise FormatError(f"{where}: damaged: the checksum of the block at byte {start} is wrong; copy the file again")
    if compression:
        found = _COMPRESSIONS.get(compression, f"compression {compression}")
        raise FormatError(f"{where}: expected uncompressed blocks, as TensorFlow writes, found {found}")
    block = content[start:end]
    restarts = int.from_bytes(block[-4:], "little")  # for searching; whoever reads on from the start needs none
    if 4 * (restarts + 1) > size:
        raise FormatError(
            f"{where}: damaged: the block at byte {start} claims {restarts} restart points in {size} bytes"
        )
    block = block[: size - 4 * (restarts + 1)]
    position, key = 0, b""
    while position < len(block):
        shared, position = read_varint(block, position, where)
        rest, position = read_varint(block, position, where)
        length, position = read_varint(block, position, where)
        if shared > len(key) or shared + rest > KEY_LIMIT or rest + length > len(block) - position:
            raise FormatError(f"{where}: damaged: an entry of the block at byte {start} does not fit")
        key = key[:shared] + bytes(block[position : position + rest])
        position += rest
        yield key, block[position : position + length]
        position += length


def _show(key: bytes) -> str:
    return repr(key[:80].decode("utf-8", "backslashreplace"))
