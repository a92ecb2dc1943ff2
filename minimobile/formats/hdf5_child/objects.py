"""What is in an HDF5 file: every object judged before any array is read.

Allowed: hard links, groups, datasets of plain numbers or fixed-length text, stored in the file itself, uncompressed or
with gzip and shuffle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import h5py
import numpy as np

from . import RefusalError
from .classic_metadata import Extent
from .extents import check_extents

OBJECT_LIMIT = 20_000
DEPTH_LIMIT = 32
ATTRIBUTE_LIMIT = 16 * 2**20
SPARE_BYTES = 64 * 2**20  # as minimobile.storage.files has it

PLAIN_TYPES = (  # as HDF5 names them, the likeliest first
    *("IEEE_F32LE", "IEEE_F16LE", "IEEE_F64LE", "IEEE_F32BE", "IEEE_F16BE", "IEEE_F64BE"),
    *(f"STD_{sign}{bits}{order}" for sign in "IU" for bits in (8, 16, 32, 64) for order in ("LE", "BE")),
)

Attribute = str | int | float | list[Any]


@dataclass
class Contents:
    """What a file holds, by object path: attributes (the root's path is ""), and datasets, open."""

    attributes: dict[str, dict[str, Attribute]] = field(default_factory=dict)
    datasets: dict[str, h5py.Dataset] = field(default_factory=dict)


def examine(root: Any, file: BinaryIO, size: int) -> Contents:
    """Visit every object once, over hard links only; refuse at the first thing not allowed.

    `root` is the file as h5py has it, `file` the same bytes, `size` their number.
    """
    contents = Contents({"": _read_attributes(root, "/")})
    headers = {_address(root.id): "/"}
    extents: list[Extent] = []
    waiting: list[tuple[str, Any]] = [("", root)]
    total = 0
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            path = f"{prefix}/{name}" if prefix else name
            if len(headers) > OBJECT_LIMIT or path.count("/") >= DEPTH_LIMIT:
                raise RefusalError(f"{path}: expected at most {OBJECT_LIMIT} objects and {DEPTH_LIMIT} levels")
            link = group.get(name, getlink=True)
            if type(link) is not h5py.HardLink:
                kind = type(link).__name__  # SoftLink or ExternalLink
                raise RefusalError(f"{path}: expected data, found a link ({kind}); links are not followed")
            item = h5py.h5o.open(group.id, name.encode("utf-8"))
            address = _address(item)
            if address in headers:
                raise RefusalError(f"{path}: expected every object once, found a second link to one (a link cycle?)")
            headers[address] = path
            if isinstance(item, h5py.h5g.GroupID):
                child = h5py.Group(item)
                waiting.append((path, child))
            elif isinstance(item, h5py.h5d.DatasetID):
                total += _check_dataset(item, size, path)
                if total > size + SPARE_BYTES:
                    raise RefusalError(f"{path}: expected no more data than the file can hold, found {total} bytes")
                child = contents.datasets[path] = h5py.Dataset(item)
                extents += _find_data(item, path)
            else:
                raise RefusalError(f"{path}: expected groups and datasets only, found a named data type")
            contents.attributes[path] = _read_attributes(child, path)
    _check_byte_order(contents.datasets)
    check_extents(file, size, list(headers.items()), extents)
    return contents


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item).addr)


def _check_dataset(item: Any, file_size: int, where: str) -> int:
    """Refuse all but plain datasets inside the file; return the number of bytes that reading it takes.

    The layout comes first: asking a virtual dataset for its shape already opens the files that it names.
    """
    properties = item.get_create_plist()
    layout = properties.get_layout()
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise RefusalError(f"{where}: expected data in this file, found a virtual dataset")
    if properties.get_external_count() > 0:
        raise RefusalError(f"{where}: expected data in this file, found external storage")
    _check_type(item.get_type(), where)
    if item.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        raise RefusalError(f"{where}: expected numbers, found an empty dataset")
    shape, item_size = tuple(map(int, item.shape)), int(item.get_type().get_size())
    count = math.prod(shape) * item_size  # Python integers: no overflow
    if layout != h5py.h5d.CHUNKED:
        if count != item.get_storage_size():
            raise RefusalError(
                f"{where}: expected {count} bytes for shape {shape}, found {item.get_storage_size()} in the file"
            )
        return count
    chunk = tuple(map(int, properties.get_chunk()))
    chunk_size = math.prod(chunk) * item_size
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters not in ([], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
        raise RefusalError(f"{where}: expected no compression, gzip or shuffle and gzip, found filters {filters}")
    if max(count, chunk_size) > file_size + SPARE_BYTES or not all(chunk):
        raise RefusalError(f"{where}: expected no more data than the file can hold, found {shape} chunked {chunk}")
    chunk_count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if item.get_num_chunks() != chunk_count:
        raise RefusalError(f"{where}: expected {chunk_count} chunks, found {item.get_num_chunks()}; data is missing")
    return count


def _check_type(kind: Any, where: str) -> None:
    if isinstance(kind, h5py.h5t.TypeStringID):
        if kind.is_variable_str():
            raise RefusalError(f"{where}: expected numbers or text of fixed length, found text of variable length")
        return
    if not any(kind.equal(getattr(h5py.h5t, name)) for name in PLAIN_TYPES):
        raise RefusalError(f"{where}: expected integers, float16, float32 or float64, found another data type")


def _find_data(item: Any, where: str) -> list[Extent]:
    """Return where a dataset's bytes lie; of a compact one, in its header, none."""
    layout = item.get_create_plist().get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        offset = item.get_offset()
        return [] if offset is None else [Extent(offset, offset + item.get_storage_size(), where)]
    if layout == h5py.h5d.COMPACT:
        return []
    chunks = [item.get_chunk_info(index) for index in range(item.get_num_chunks())]
    return [Extent(chunk.byte_offset, chunk.byte_offset + chunk.size, where) for chunk in chunks]


def _check_byte_order(datasets: dict[str, h5py.Dataset]) -> None:
    """Refuse arrays in both byte orders: whoever writes a file writes all in one, and one bit decides which."""
    first: dict[str, str] = {}
    for name, dataset in datasets.items():
        order = dataset.dtype.str[0]
        if order in "<>":
            first.setdefault(order, name)
    if len(first) == 2:
        raise RefusalError(f"{first['>']}: expected the byte order of {first['<']}, found the other one")


def _read_attributes(item: Any, where: str) -> dict[str, Attribute]:
    values: dict[str, Attribute] = {}
    total = 0
    for index in range(h5py.h5a.get_num_attrs(item.id)):
        if index >= OBJECT_LIMIT:
            raise RefusalError(f"{where}: expected at most {OBJECT_LIMIT} attributes")
        attribute = h5py.h5a.open(item.id, index=index)
        name = attribute.name.decode("utf-8")
        kind, shape = attribute.get_type(), tuple(map(int, attribute.shape))
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str() and shape != ():
            continue  # many references to one long text would take any amount of memory
        if not (isinstance(kind, h5py.h5t.TypeStringID) and shape == ()):
            _check_type(kind, f"{where}: attribute {name}")
        total += math.prod(shape) * int(kind.get_size())
        if total > ATTRIBUTE_LIMIT or attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            raise RefusalError(f"{where}: expected attributes of at most {ATTRIBUTE_LIMIT} bytes, found {name} {shape}")
        if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
            values[name] = _plain(item.attrs[name])
        else:
            content = np.empty(shape, attribute.dtype)
            attribute.read(content)
            values[name] = _plain(content)
    return values


def _plain(value: Any) -> Attribute:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str | int | float):
        return value
    if np.ndim(value) == 0:
        return _plain(value.item())
    return [_plain(part) for part in value]
