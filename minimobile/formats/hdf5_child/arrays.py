"""A dataset as an array. Chunks are inflated under a limit: libhdf5 inflates one to whatever its stream says."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from . import RefusalError


def read_array(dataset: h5py.Dataset, name: str) -> NDArray[Any]:
    """Read one dataset, of the path `name`, in its stored dtype and C order (text: NumPy bytes)."""
    if dataset.chunks is None:
        values: NDArray[Any] = np.asarray(dataset[()], order="C")
        return values
    return _read_chunks(dataset, name)


def _read_chunks(dataset: h5py.Dataset, where: str) -> NDArray[Any]:
    chunk, shape, dtype = dataset.chunks, dataset.shape, dataset.dtype
    values: NDArray[Any] = np.empty(shape, dtype)
    size = math.prod(chunk) * dtype.itemsize
    seen = set()
    for index in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(index)
        start = tuple(map(int, info.chunk_offset))
        if start in seen or any(i % c or i >= n for i, c, n in zip(start, chunk, shape, strict=True)):
            raise RefusalError(f"{where}: expected every chunk once, found one at {start}")
        seen.add(start)
        if info.filter_mask:
            raise RefusalError(f"{where}: expected all chunks stored alike, found one that skips a filter")
        _, stored = dataset.id.read_direct_chunk(start)
        content = _inflate(stored, size, where) if dataset.compression == "gzip" else stored
        if len(content) != size:
            raise RefusalError(f"{where}: expected chunks of {size} bytes, found one of {len(content)}")
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
        raise RefusalError(f"{where}: expected chunks of {size} bytes, found one that inflates to more")
    return content
