"""The only place that opens HDF5 files: others' are read in a child process, our own by the index at their end."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.formats.hdf5_index import make_index, read_index
from minimobile.formats.hdf5_process import Contents, fetch_contents
from minimobile.formats.signatures import HDF5
from minimobile.storage.files import open_regular, read_start, regular_file_size, write_whole_bytes

FILE_LIMIT = 2**31  # bytes; a MobileNet trained with two moments for each weight has 75 MB


@dataclass(frozen=True)
class GuardedFile:
    """What an HDF5 file holds that has passed every check.

    `attributes` maps each object's path (the root's is "") to its attributes, `shapes` and `dtypes` each dataset's path
    ("weights/classifier.bias") to its shape and dtype. Attributes that are lists of texts of variable length (Keras'
    `layer_names`) are left out.
    """

    where: str
    attributes: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[Any]]
    _arrays: Mapping[str, NDArray[Any]] = field(repr=False)

    def read(self, name: str) -> NDArray[Any]:
        """Return one dataset as a new array in native byte order (text: NumPy bytes)."""
        if name not in self._arrays:
            raise FormatError(f"{self.where}: expected the dataset {name!r}, found none of that name")
        values = self._arrays[name]
        return values.astype(values.dtype.newbyteorder("="))


def read_hdf5(path: Path, image: bytes | None = None, *, has_numbers: bool = True) -> GuardedFile:
    """Read the HDF5 file at `path`, or the bytes `image` of one (then `path` only names it), and check all of it.

    Without `has_numbers` the only arrays are those of texts. Raises FormatError for a file that is damaged or hostile,
    UnavailableError where no child process can be started to read it.
    """
    size = regular_file_size(path) if image is None else len(image)
    if size > FILE_LIMIT:
        raise FormatError(f"{path}: expected an HDF5 file of at most {FILE_LIMIT} bytes, found {size}")
    start = read_start(path, START_BYTES) if image is None else image[:START_BYTES]
    if not start.startswith(HDF5):
        raise FormatError(f"{path}: expected an HDF5 file, found {describe_content(start)}")
    if size < 64:
        raise FormatError(f"{path}: this HDF5 file is truncated: found {size} bytes; download it again")
    contents: Contents | None
    if image is not None:
        contents = fetch_contents(str(path), image, size, has_numbers)
    else:
        contents = read_index(path)
        if contents is None:
            with open_regular(path) as file:
                contents = fetch_contents(str(path), file, size, has_numbers)
    shapes = {name: shape for name, (_, shape) in contents.table.items()}
    dtypes = {name: kind.newbyteorder("=") for name, (kind, _) in contents.table.items()}
    return GuardedFile(str(path), contents.attributes, shapes, dtypes, contents.arrays)


def write_hdf5(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Mapping[str, str | int]],
    *,
    overwrite: bool = True,
) -> None:
    """Write datasets by path and attributes by object path ("" is the root) to a new file, wholly or not at all.

    Text goes in as NumPy bytes in UTF-8. The format of HDF5 1.8 is used: its metadata carries checksums, which the
    older one lacks, and every viewer since 2008 reads it. An index follows it.
    """
    import h5py  # to write; others' files never come near it in this process

    content = io.BytesIO()  # a full disk leaves libhdf5 with a file that it cannot close
    with h5py.File(content, "w", libver=("v108", "v110")) as file:
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
        file.flush()
        sets = {name: file[name] for name in arrays}
        table = {name: (item.dtype.str, list(item.shape), item.id.get_offset() or 0) for name, item in sets.items()}
    index = make_index(content.getbuffer(), attributes, table)
    content.seek(0, io.SEEK_END)
    content.write(index)
    write_whole_bytes(path, content.getvalue(), overwrite=overwrite)
