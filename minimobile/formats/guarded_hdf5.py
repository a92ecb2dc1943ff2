"""The only place that opens HDF5 files. Everything in a file is judged before anything of it is read.

Allowed: hard links, groups, datasets of plain numbers or fixed-length text, stored in the file itself, uncompressed or
with gzip and shuffle. A file never makes this module open another file, and chunks are inflated here under a limit,
because libhdf5 inflates a chunk to whatever size its stream has.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats.files import SPARE_BYTES, open_regular, read_start, regular_file_size, write_whole_bytes
from minimobile.formats.foreign import START_BYTES, describe_content

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP_SIGNATURE = b"GCOL\x01\0\0\0"
_HEAP_HEADER = 16  # bytes, of a heap as of an object in it
OBJECT_LIMIT = 20_000
DEPTH_LIMIT = 32
ATTRIBUTE_LIMIT = 16 * 2**20

_PLAIN_TYPES = (  # as HDF5 names them, the likeliest first
    *("IEEE_F32LE", "IEEE_F16LE", "IEEE_F64LE", "IEEE_F32BE", "IEEE_F16BE", "IEEE_F64BE"),
    *(f"STD_{sign}{bits}{order}" for sign in "IU" for bits in (8, 16, 32, 64) for order in ("LE", "BE")),
)
_LIBRARY_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError, zlib.error)

Attribute = str | int | float | list[Any]


@dataclass
class GuardedFile:
    """An open HDF5 file that has passed every check.

    `attributes` maps each object's path (the root's is "") to its attributes, `shapes` and `dtypes` each dataset's path
    ("weights/classifier.bias") to its shape and dtype. Attributes that are lists of texts of variable length (Keras'
    `layer_names`) are never read.
    """

    where: str
    size: int
    attributes: dict[str, dict[str, Attribute]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    _datasets: dict[str, Any] = field(default_factory=dict)

    def read(self, name: str) -> NDArray[Any]:
        """Read one dataset as an array of its stored dtype in native byte order (text: NumPy bytes)."""
        if name not in self._datasets:
            raise FormatError(f"{self.where}: expected the dataset {name!r}, found none of that name")
        with _translated_errors(self.where):
            dataset = self._datasets[name]
            if dataset.chunks is None:
                values = np.asarray(dataset[()])
            else:
                values = _read_chunks(dataset, f"{self.where}: {name}")
            return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def open_hdf5(path: Path, image: bytes | None = None) -> Iterator[GuardedFile]:
    """Open the HDF5 file at `path`, or the bytes `image` of one (then `path` only names it), and check all of it."""
    with _open_checked(path, image) as (handle, size):
        file = GuardedFile(str(path), size)
        with _translated_errors(str(path)):
            _walk(file, handle)
        yield file


def read_root_attributes(path: Path) -> dict[str, Attribute]:
    """Return the attributes of the root group, without a look at the rest of the file."""
    with _open_checked(path, None) as (handle, _), _translated_errors(str(path)):
        return _read_attributes(handle, f"{path}: /")


def has_hdf5_signature(path: Path) -> bool:
    """Say whether the file begins as HDF5 files do (one that begins with a user block does not)."""
    return read_start(path, len(SIGNATURE)) == SIGNATURE


def write_hdf5(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Mapping[str, str | int]],
    *,
    overwrite: bool = True,
) -> None:
    """Write datasets by path and attributes by object path ("" is the root) to a new file, wholly or not at all.

    Text goes in as NumPy bytes in UTF-8. The format of HDF5 1.8 is used: its metadata carries checksums, which the
    older one lacks, and every viewer since 2008 reads it.
    """
    image = io.BytesIO()  # a full disk leaves libhdf5 with a file that it cannot close
    with h5py.File(image, "w", libver=("v108", "v110")) as file:
        for name, values in arrays.items():
            if values.dtype.kind == "S":
                kind = h5py.string_dtype("utf-8", max(values.dtype.itemsize, 1))
                file.create_dataset(name, data=values.astype(kind), dtype=kind)
            else:
                file.create_dataset(name, data=values)
        for name, pairs in attributes.items():
            target = file[f"/{name}"]
            for key, value in pairs.items():
                if isinstance(value, str):
                    text = value.encode("utf-8")
                    kind = h5py.string_dtype("utf-8", max(len(text), 1))
                    target.attrs.create(key, np.array(text, dtype=kind), dtype=kind)
                else:
                    target.attrs.create(key, np.int64(value))
    write_whole_bytes(path, image.getvalue(), overwrite=overwrite)


@contextmanager
def _open_checked(path: Path, image: bytes | None) -> Iterator[tuple[Any, int]]:
    size = regular_file_size(path) if image is None else len(image)
    start = read_start(path, START_BYTES) if image is None else image[:START_BYTES]
    if not start.startswith(SIGNATURE):
        raise FormatError(f"{path}: expected an HDF5 file, found {describe_content(start)}")
    with open_regular(path) if image is None else io.BytesIO(image) as content:
        _check_text_heaps(str(path), content, size)
    with _translated_errors(str(path)):
        handle = h5py.File(path if image is None else io.BytesIO(image), "r")
    with handle:
        yield handle, size


def _check_text_heaps(where: str, content: BinaryIO, size: int) -> None:
    """Walk every heap of texts of variable length: libhdf5 walks one for ever whose object has no size.

    Source: HDF5 File Format Specification 3.0, section III.E (global heap; 8 bytes per length, as in all our files).
    """
    start = content.read(16)
    if len(start) < 16:
        raise FormatError(f"{where}: this HDF5 file is truncated: found {len(start)} bytes; download it again")
    sizes = start[9:11] if start[8:9] >= b"\2" else start[13:15]  # by the superblock's version
    if sizes != b"\x08\x08":
        raise FormatError(
            f"{where}: this HDF5 file is damaged or truncated, or was written in an unusual way: expected offsets and "
            f"lengths of 8 bytes, found {sizes.hex(' ')}"
        )
    position, before, end = 16, start, 0
    while part := content.read(2**20):
        block = before + part
        found = block.find(_HEAP_SIGNATURE)
        while found >= 0:
            place = position - len(before) + found
            end = _walk_heap(content, place, size) if place >= end else 0  # heaps do not overlap
            if not end:
                raise FormatError(f"{where}: this HDF5 file is damaged (a heap of texts at {place} cannot be walked)")
            found = block.find(_HEAP_SIGNATURE, found + 1)
        position += len(part)
        content.seek(position)
        before = block[-len(_HEAP_SIGNATURE) + 1 :]


def _walk_heap(content: BinaryIO, place: int, size: int) -> int:
    """Return where the heap at `place` ends, 0 where its objects do not fill it."""
    content.seek(place)
    header = content.read(_HEAP_HEADER)
    end = place + int.from_bytes(header[8:], "little")
    place += _HEAP_HEADER
    if place > end or end > size:
        return 0
    while place + _HEAP_HEADER <= end:
        content.seek(place)
        record = content.read(_HEAP_HEADER)
        index, length = int.from_bytes(record[:2], "little"), int.from_bytes(record[8:], "little")
        step = _HEAP_HEADER + -(-length // 8) * 8 if index else length  # the free space counts its own header
        if step < _HEAP_HEADER:
            return 0
        place += step
    return end if place <= end else 0


@contextmanager
def _translated_errors(where: str) -> Iterator[None]:
    """Turn what h5py raises on damaged files into a FormatError."""
    try:
        yield
    except MinimobileError:
        raise
    except _LIBRARY_ERRORS as error:
        text = " ".join(str(error).split())
        raise FormatError(
            f"{where}: this HDF5 file is damaged or truncated ({type(error).__name__}: {text})"
        ) from error


def _walk(file: GuardedFile, root: Any) -> None:
    """Visit every object once, over hard links only, and fill in `file`; raise at the first thing not allowed."""
    file.attributes[""] = _read_attributes(root, f"{file.where}: /")
    seen = {_address(root.id)}
    waiting = [("", root)]
    total = 0
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            path = f"{prefix}/{name}" if prefix else name
            where = f"{file.where}: {path}"
            if len(seen) > OBJECT_LIMIT or path.count("/") >= DEPTH_LIMIT:
                raise FormatError(f"{where}: expected at most {OBJECT_LIMIT} objects and {DEPTH_LIMIT} levels")
            link = group.get(name, getlink=True)
            if type(link) is not h5py.HardLink:
                kind = type(link).__name__  # SoftLink or ExternalLink
                raise FormatError(f"{where}: expected data, found a link ({kind}); links are not followed")
            item = h5py.h5o.open(group.id, name.encode("utf-8"))
            address = _address(item)
            if address in seen:
                raise FormatError(f"{where}: expected every object once, found a second link to one (a link cycle?)")
            seen.add(address)
            if isinstance(item, h5py.h5g.GroupID):
                child = h5py.Group(item)
                waiting.append((path, child))
            elif isinstance(item, h5py.h5d.DatasetID):
                total += _check_dataset(item, file.size, where)
                if total > file.size + SPARE_BYTES:
                    raise FormatError(f"{where}: expected no more data than the file can hold, found {total} bytes")
                child = h5py.Dataset(item)
                file.shapes[path], file.dtypes[path] = child.shape, child.dtype
                file._datasets[path] = child
            else:
                raise FormatError(f"{where}: expected groups and datasets only, found a named data type")
            file.attributes[path] = _read_attributes(child, where)


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item).addr)


def _check_dataset(item: Any, file_size: int, where: str) -> int:
    """Refuse all but plain datasets inside the file; return the number of bytes that reading it takes.

    The layout comes first: asking a virtual dataset for its shape already opens the files that it names.
    """
    properties = item.get_create_plist()
    layout = properties.get_layout()
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise FormatError(f"{where}: expected data in this file, found a virtual dataset")
    if properties.get_external_count() > 0:
        raise FormatError(f"{where}: expected data in this file, found external storage")
    _check_type(item.get_type(), where)
    if item.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        raise FormatError(f"{where}: expected numbers, found an empty dataset")
    shape, item_size = tuple(map(int, item.shape)), int(item.get_type().get_size())
    count = math.prod(shape) * item_size  # Python integers: no overflow
    if layout != h5py.h5d.CHUNKED:
        if count != item.get_storage_size():
            raise FormatError(
                f"{where}: expected {count} bytes for shape {shape}, found {item.get_storage_size()} in the file"
            )
        return count
    chunk = tuple(map(int, properties.get_chunk()))
    chunk_size = math.prod(chunk) * item_size
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters not in ([], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
        raise FormatError(f"{where}: expected no compression, gzip or shuffle and gzip, found filters {filters}")
    if max(count, chunk_size) > file_size + SPARE_BYTES or not all(chunk):
        raise FormatError(f"{where}: expected no more data than the file can hold, found shape {shape} chunked {chunk}")
    chunk_count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if item.get_num_chunks() != chunk_count:
        raise FormatError(f"{where}: expected {chunk_count} chunks, found {item.get_num_chunks()}; data is missing")
    return count


def _check_type(kind: Any, where: str) -> None:
    if isinstance(kind, h5py.h5t.TypeStringID):
        if kind.is_variable_str():
            raise FormatError(f"{where}: expected numbers or text of fixed length, found text of variable length")
        return
    if not any(kind.equal(getattr(h5py.h5t, name)) for name in _PLAIN_TYPES):
        raise FormatError(f"{where}: expected integers, float16, float32 or float64, found another data type")


def _read_attributes(item: Any, where: str) -> dict[str, Attribute]:
    values: dict[str, Attribute] = {}
    total = 0
    for index in range(h5py.h5a.get_num_attrs(item.id)):
        if index >= OBJECT_LIMIT:
            raise FormatError(f"{where}: expected at most {OBJECT_LIMIT} attributes")
        attribute = h5py.h5a.open(item.id, index=index)
        name = attribute.name.decode("utf-8")
        kind, shape = attribute.get_type(), tuple(map(int, attribute.shape))
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str() and shape != ():
            continue  # many references to one long text would take any amount of memory
        if not (isinstance(kind, h5py.h5t.TypeStringID) and shape == ()):
            _check_type(kind, f"{where}: attribute {name}")
        total += math.prod(shape) * int(kind.get_size())
        if total > ATTRIBUTE_LIMIT or attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            raise FormatError(f"{where}: expected attributes of at most {ATTRIBUTE_LIMIT} bytes, found {name} {shape}")
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


def _read_chunks(dataset: Any, where: str) -> NDArray[Any]:
    chunk, shape, dtype = dataset.chunks, dataset.shape, dataset.dtype
    values: NDArray[Any] = np.empty(shape, dtype)
    size = math.prod(chunk) * dtype.itemsize
    seen = set()
    for index in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(index)
        start = tuple(map(int, info.chunk_offset))
        if start in seen or any(i % c or i >= n for i, c, n in zip(start, chunk, shape, strict=True)):
            raise FormatError(f"{where}: expected every chunk once, found one at {start}")
        seen.add(start)
        if info.filter_mask:
            raise FormatError(f"{where}: expected all chunks stored alike, found one that skips a filter")
        if info.size > dataset.file.id.get_filesize():
            raise FormatError(f"{where}: expected chunks inside the file, found one of {info.size} bytes")
        _, stored = dataset.id.read_direct_chunk(start)
        content = _inflate(stored, size, where) if dataset.compression == "gzip" else stored
        if len(content) != size:
            raise FormatError(f"{where}: expected chunks of {size} bytes, found one of {len(content)}")
        if dataset.shuffle:
            content = np.frombuffer(content, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
        part = np.frombuffer(content, dtype).reshape(chunk)
        inside = tuple(slice(0, min(c, n - i)) for i, c, n in zip(start, chunk, shape, strict=True))
        values[tuple(slice(i, i + s.stop) for i, s in zip(start, inside, strict=True))] = part[inside]
    return values


def _inflate(stored: bytes, size: int, where: str) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(stored, size)
    if not stream.eof and stream.decompress(stream.unconsumed_tail, 1):
        raise FormatError(f"{where}: expected chunks of {size} bytes, found one that inflates to more")
    return content
