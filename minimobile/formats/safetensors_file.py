"""The safetensors format: the header is judged in full before memory is taken for any tensor.

Stricter than the specification in three points: a header has at most 1 MiB, no tensor is empty (no MobileNet has one),
and types are floats, except the int64 counters `num_batches_tracked`. Files are read, not mapped: a file that is cut
short while mapped kills the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.storage.files import open_regular, regular_file_size, write_whole_bytes
from minimobile.storage.strict_json import parse_json_object

HEADER_LIMIT = 2**20  # V2 with every tensor: 40 kB
RANK_LIMIT = 8
COUNTER = "num_batches_tracked"
_ITEM_SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8}


@dataclass(frozen=True)
class Entry:
    """One tensor of a header: its type, its shape and its first and last-but-one byte from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def recognise(path: Path) -> bool:
    """Say whether the file looks like safetensors: a length, then a JSON object. Damaged ones count, too."""
    if regular_file_size(path) <= 8:
        return False
    with open_regular(path) as file:
        return file.read(9)[8:] == b"{"


def read_header(path: Path) -> dict[str, Entry]:
    """Return every tensor's entry; a header that breaks a rule of the format raises FormatError."""
    size = regular_file_size(path)
    with open_regular(path) as file:
        return _read_header(path, file, size)


def read_tensors(path: Path, with_counters: bool = False) -> dict[str, NDArray[Any]]:
    """Read all weights by name: F16 and BF16 widened to float32, F32 as float32, F64 as float64.

    `with_counters` adds the int64 counters, which no inference needs.
    """
    size = regular_file_size(path)
    with open_regular(path) as file:
        entries = _read_header(path, file, size)
        start = min((entry.begin for entry in entries.values()), default=size)
        data = _read_data(path, file, start, size)
    return {
        name: _view_tensor(data[entry.begin - start : entry.end - start], entry)
        for name, entry in entries.items()
        if with_counters or not is_counter(name)
    }


def is_counter(name: str) -> bool:
    """Say whether a tensor of that name counts the batches that a batch norm has seen in training."""
    return name.rpartition(".")[2] == COUNTER


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write `tensors` wholly or not at all, with the metadata that transformers demands."""
    import safetensors.numpy  # reading needs none of it

    contiguous = {name: np.ascontiguousarray(values).reshape(values.shape) for name, values in tensors.items()}
    # Not save_file: on a full disk it raises an exception of its own.
    write_whole_bytes(path, safetensors.numpy.save(contiguous, metadata={"format": "pt"}))


def _read_header(path: Path, file: BinaryIO, size: int) -> dict[str, Entry]:
    start = file.read(START_BYTES)
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{":
        raise FormatError(
            f"{path}: expected a safetensors file (a length, then a header that begins with '{{'), found "
            f"{describe_content(start)}"
        )
    if length > HEADER_LIMIT:
        raise FormatError(f"{path}: expected a header of at most {HEADER_LIMIT} bytes, found one of {length}")
    file.seek(8)
    header = file.read(length)
    if len(header) != length:
        raise FormatError(
            f"{path}: this safetensors file is truncated: expected at least {length + 8} bytes, found {size}; "
            "download it again"
        )
    values = parse_json_object(header.rstrip(b" "), f"{path}: header")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise FormatError(f"{path}: expected __metadata__ to map names to texts")
    entries = {name: _check_entry(f"{path}: {name[:200]}", name, value, 8 + length) for name, value in values.items()}
    _check_layout(path, entries, 8 + length, size)
    return entries


def _check_entry(where: str, name: str, value: object, data_start: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: expected dtype, shape and data_offsets, found {str(value)[:80]!r}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZES or (dtype == "I64") is not is_counter(name):
        raise FormatError(
            f"{where}: expected {'I64' if is_counter(name) else 'F16, BF16, F32 or F64'}, found {dtype!r}"
        )
    for key, numbers, limit in (("shape", shape, RANK_LIMIT), ("data_offsets", offsets, 2)):
        # bool is a kind of int to Python; type() leaves it out
        if not isinstance(numbers, list) or len(numbers) > limit or not all(type(n) is int and n >= 0 for n in numbers):
            raise FormatError(f"{where}: expected {key} to be at most {limit} whole numbers, found {str(numbers)[:80]}")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FormatError(f"{where}: expected data_offsets to be a begin and an end, found {offsets}")
    count = math.prod(shape) * _ITEM_SIZES[dtype]  # Python integers: no overflow
    if count != offsets[1] - offsets[0]:
        raise FormatError(
            f"{where}: expected {count} bytes for shape {shape} of {dtype}, found {offsets[1] - offsets[0]}"
        )
    if count == 0:
        raise FormatError(f"{where}: expected at least one element, found shape {shape}")
    return Entry(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _check_layout(path: Path, entries: Mapping[str, Entry], data_start: int, size: int) -> None:
    """Tensors must cover the rest of the file without holes or overlaps."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
        if entry.begin != position:
            what = "a hole" if entry.begin > position else "an overlap"
            raise FormatError(
                f"{path}: {name[:200]}: expected its data at byte {position}, found {what}: {entry.begin}"
            )
        position = entry.end
    if position > size:
        raise FormatError(
            f"{path}: this safetensors file is truncated: expected {position} bytes, found {size}; download it again"
        )
    if position < size:
        raise FormatError(f"{path}: expected {position} bytes, found {size}; {size - position} bytes belong to nothing")


def _read_data(path: Path, file: BinaryIO, start: int, size: int) -> NDArray[np.uint8]:
    """Return the bytes of a file from `start` on, in one array: the system gives its memory in large pages."""
    data = np.empty(size - start, np.uint8)
    file.seek(start)
    count = file.readinto(data.data)  # type: ignore[attr-defined]
    if count != len(data):
        raise FormatError(f"{path}: expected {size} bytes, the file ended after {start + count}")
    return data


def _view_tensor(data: NDArray[np.uint8], entry: Entry) -> NDArray[Any]:
    """Return the tensor whose bytes these are, without a copy where its numbers can stay as they are."""
    stored = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}[entry.dtype]
    values = data.view(stored).reshape(entry.shape)
    aligned: NDArray[Any] = np.require(values, requirements="A")
    return widen_bfloat16(aligned) if entry.dtype == "BF16" else native_float(aligned)


def widen_bfloat16(bits: NDArray[Any]) -> NDArray[np.float32]:
    """Turn the bits of bfloat16 numbers (uint16) into the float32 numbers they are the upper halves of: exact."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)


def native_float(values: NDArray[Any]) -> NDArray[Any]:
    """Bring numbers into native byte order, and float16 to float32: exact."""
    dtype = np.float32 if values.dtype.itemsize == 2 else values.dtype.newbyteorder("=")
    return values.astype(dtype, copy=False)
