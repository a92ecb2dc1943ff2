"""TensorFlow's tensor bundles: an index of arrays, and shards that hold their bytes.

Source: tensorflow/core/protobuf/tensor_bundle.proto, core/util/tensor_bundle, core/framework/types.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.protobuf import as_view, fields, signed
from minimobile.formats.safetensors_file import native_float, widen_bfloat16
from minimobile.formats.tensorflow import sorted_table
from minimobile.formats.tensorflow.crc32c import crc32c, unmask
from minimobile.formats.tensorflow.tensor_proto import name_type, read_shape
from minimobile.storage.files import open_regular, regular_file_size
from minimobile.storage.hub import INDEX

SHARD_LIMIT = 1_000
ELEMENT_LIMIT = 2**40
_ITEM_SIZES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4,
    "int64": 8,
}  # fmt: skip
"""Of the types that are read; others are only listed."""


class Variable(NamedTuple):
    """An array as the index describes it: the name of its type, its shape, and where its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    is_sliced: bool


class Bundle(Mapping[str, NDArray[Any]]):
    """A checkpoint's arrays by name, each read from its shard, and checked, when it is asked for.

    float16 and bfloat16 are widened to float32.
    """

    def __init__(self, prefix: Path) -> None:
        """Read the index of the checkpoint `prefix`; a claim that its shards cannot keep raises FormatError."""
        self.prefix = prefix
        self.index = prefix.with_name(prefix.name + INDEX)
        entries = sorted_table.read_table(self.index)
        if b"" not in entries:
            raise FormatError(f"{self.index}: expected a header under the empty name, found none")
        self.shard_count, self.byte_order = _read_header(entries.pop(b""), str(self.index))
        # What begins with a zero byte is a slice of a variable that is listed under its plain name, too.
        names = {_read_name(key, self.index): key for key in entries if not key.startswith(b"\0")}
        self.variables = {name: _read_entry(entries[key], f"{self.index}: {name}") for name, key in names.items()}
        self._check_places()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one array."""
        variable = self.variables[name]
        where = f"{self.index}: {name}"
        if variable.is_sliced:
            raise FormatError(
                f"{where}: expected a variable in one piece, found a partitioned one; save it unpartitioned"
            )
        if variable.dtype not in _ITEM_SIZES:
            raise FormatError(f"{where}: expected numbers, found {variable.dtype}")
        is_bfloat16 = variable.dtype == "bfloat16"
        stored = np.dtype("uint16" if is_bfloat16 else variable.dtype).newbyteorder(self.byte_order)  # type: ignore[arg-type]
        values = np.empty(variable.shape, stored)
        content = values.reshape(-1).view(np.uint8)
        with open_regular(self._shard(variable.shard)) as file:
            file.seek(variable.offset)
            count = file.readinto(content.data)  # type: ignore[attr-defined]
        if count != variable.size:
            raise FormatError(f"{where}: expected {variable.size} bytes, the file ended after {count}")
        if crc32c(content.data) != unmask(variable.checksum):
            raise FormatError(f"{where}: damaged: the checksum of its data is wrong; copy or download the files again")
        if is_bfloat16:
            return widen_bfloat16(values.astype(np.uint16, copy=False))
        return native_float(values) if stored.kind == "f" else values.astype(stored.newbyteorder("="), copy=False)

    def __contains__(self, name: object) -> bool:
        """Say whether there is an array of that name, without reading it as Mapping's own would."""
        return name in self.variables

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.variables)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.variables)

    def _shard(self, number: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05d}-of-{self.shard_count:05d}")

    def _check_places(self) -> None:
        """Every array must lie in a shard that is there, and none over another: then no claim exceeds the files."""
        ends: dict[int, int] = {}
        sizes: dict[int, int] = {}
        for name, variable in sorted(self.variables.items(), key=lambda item: item[1].offset):
            where = f"{self.index}: {name}"
            if variable.is_sliced:
                continue
            if variable.shard >= self.shard_count:
                raise FormatError(f"{where}: expected one of {self.shard_count} shards, found number {variable.shard}")
            shard = self._shard(variable.shard)
            if variable.shard not in sizes:
                if not shard.exists():
                    raise FormatError(f"{where}: expected its shard {shard.name} beside it, found none; get it, too")
                sizes[variable.shard] = regular_file_size(shard)
            end = variable.offset + variable.size
            if end > sizes[variable.shard]:
                raise FormatError(
                    f"{where}: expected its data within the {sizes[variable.shard]} bytes of "
                    f"{shard.name}, found them at bytes {variable.offset} to {end}; the file is "
                    "truncated or belongs to another index"
                )
            if variable.size and variable.offset < ends.get(variable.shard, 0):
                raise FormatError(f"{where}: expected data of its own, found it to overlap another variable's")
            ends[variable.shard] = max(end, ends.get(variable.shard, 0))


def _read_header(data: memoryview, where: str) -> tuple[int, str]:
    """Return the number of shards and the byte order of a BundleHeaderProto."""
    shard_count, order, oldest_reader = 0, 0, 0
    for number, _, value in fields(data, where):
        if isinstance(value, int):
            shard_count = value if number == 1 else shard_count
            order = value if number == 2 else order
        elif number == 3:
            versions = {key: found for key, _, found in fields(value, where, 1) if isinstance(found, int)}
            oldest_reader = versions.get(2, 0)
    if not 0 < shard_count <= SHARD_LIMIT:
        raise FormatError(f"{where}: expected 1 to {SHARD_LIMIT} shards, found {shard_count}")
    if order > 1 or oldest_reader > 1:
        raise FormatError(f"{where}: expected a checkpoint of bundle version 1, found one for later readers")
    return shard_count, "<>"[order]


def _read_entry(data: memoryview, where: str) -> Variable:
    """Read a BundleEntryProto and check that its shape, type and size agree."""
    names = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "checksum"}
    found = dict.fromkeys(names.values(), 0)
    shape: tuple[int, ...] = ()
    is_sliced = False
    for number, _, value in fields(data, where):
        if number in names and isinstance(value, int):
            found[names[number]] = value
        elif number == 2:
            shape = read_shape(as_view(value, where), where).sizes or ()
        elif number == 7:
            is_sliced = True
    if min(map(signed, found.values())) < 0 or min(shape, default=0) < 0:
        raise FormatError(f"{where}: expected shape, shard, offset and size of 0 or more, found a negative one")
    if math.prod(max(1, size) for size in shape) > ELEMENT_LIMIT:  # also where one size of 0 makes it empty
        raise FormatError(f"{where}: expected at most {ELEMENT_LIMIT} elements, found shape {shape}")
    dtype = name_type(found.pop("dtype"))
    expected = math.prod(shape) * _ITEM_SIZES.get(dtype, 0)
    if dtype in _ITEM_SIZES and not is_sliced and found["size"] != expected:
        raise FormatError(f"{where}: expected {expected} bytes for shape {shape} of {dtype}, found {found['size']}")
    return Variable(dtype, shape, **found, is_sliced=is_sliced)


def _read_name(key: bytes, index: Path) -> str:
    name = key.decode(errors="replace")
    if not name.isprintable() or "\ufffd" in name:
        raise FormatError(f"{index}: expected names in UTF-8 that can be printed, found {key[:80]!r}")
    return name
