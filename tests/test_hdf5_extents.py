"""Where the bytes of an HDF5 file lie: one changed address gives other numbers, and the oldest format cannot tell."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from minimobile.errors import FormatError
from minimobile.formats.guarded_hdf5 import read_hdf5

pytestmark = pytest.mark.usefixtures("hdf5_in_this_process")
IN_A_CHILD = ("sound", "heap")  # what is right is read as by a user; the latter HDF5's own library can die of


def write_classic(path: Path, layers: int = 4) -> Path:
    """Write what Keras 3 does, in the oldest format: groups, names, arrays of a few hundred bytes."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", libver="earliest") as file:
        for layer in range(layers):
            group = file.create_group(f"layers/conv2d_{layer}/vars")
            group.attrs["name"] = f"layer {layer}"
            for index, size in enumerate((864, 32, 32, 32)):
                group[str(index)] = rng.standard_normal(size).astype(np.float32)
        chunked = rng.standard_normal((40, 40)).astype(np.float32)
        file.create_dataset("optimizer/moments", data=chunked, chunks=(16, 16), compression="gzip", shuffle=True)
    return path


def find_addresses(path: Path) -> dict[str, tuple[int, int]]:
    """Return {dataset: (where in the file its address stands, the address)} of contiguous datasets."""
    content = path.read_bytes()
    found = {}
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        for name in names:
            if isinstance(file[name], h5py.Dataset) and file[name].chunks is None:
                address = file[name].id.get_offset()
                header = h5py.h5o.get_info(file[name].id).addr
                found[name] = content.index(struct.pack("<Q", address), header), address
    return found


def test_every_array_of_a_sound_file_is_read(tmp_path: Path) -> None:
    path = write_classic(tmp_path / "x.h5")
    read = read_hdf5(path)
    with h5py.File(path) as file:
        assert len(read.shapes) == 17
        for name in read.shapes:
            assert np.array_equal(read.read(name), file[name][()])


def test_one_bit_of_an_address_never_gives_other_numbers(tmp_path: Path) -> None:
    """Every bit of every array's address: a third of them lead to another place within the file."""
    path = write_classic(tmp_path / "x.h5", layers=2)
    content = path.read_bytes()
    inside = 0
    for name, (place, address) in find_addresses(path).items():
        for bit in range(2, 17):
            changed = address ^ 1 << bit
            inside += changed < len(content)
            path.write_bytes(content[:place] + struct.pack("<Q", changed) + content[place + 8 :])
            with pytest.raises(FormatError):
                read_hdf5(path)
                pytest.fail(f"{name}: {address} changed to {changed} went unnoticed")
    assert inside > 90


def test_the_sentence_names_both(tmp_path: Path) -> None:
    path = write_classic(tmp_path / "x.h5")
    addresses = find_addresses(path)
    place = addresses["layers/conv2d_3/vars/1"][0]
    other = addresses["layers/conv2d_1/vars/2"][1]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<Q", other))
    with pytest.raises(FormatError, match=rf"vars/\d: found at {other}, where layers/conv2d_\d/vars/\d is, too"):
        read_hdf5(path)


def test_a_chunk_that_lies_where_another_one_does_is_refused(tmp_path: Path) -> None:
    path = write_classic(tmp_path / "x.h5")
    with h5py.File(path) as file:
        first, second = (file["optimizer/moments"].id.get_chunk_info(index).byte_offset for index in (0, 1))
    content = path.read_bytes()
    assert content.count(struct.pack("<Q", second)) == 1
    path.write_bytes(content.replace(struct.pack("<Q", second), struct.pack("<Q", first)))
    with pytest.raises(FormatError, match=r"optimizer/moments: found at .* where optimizer/moments is, too"):
        read_hdf5(path)


def test_two_groups_with_one_heap_of_names_are_refused(tmp_path: Path) -> None:
    """Three changed bytes of an address: libhdf5 crashes on some of these files."""
    path = write_classic(tmp_path / "x.h5")
    content = path.read_bytes()
    heaps = [place for place in range(0, len(content), 8) if content[place : place + 4] == b"HEAP"]
    for heap, other in pairwise(heaps[2:6]):
        path.write_bytes(content.replace(struct.pack("<Q", heap), struct.pack("<Q", other)))
        with pytest.raises(FormatError):
            read_hdf5(path)


def test_what_was_deleted_leaves_holes_that_are_no_damage(tmp_path: Path) -> None:
    """Many strip the optimiser's arrays from a file with h5py."""
    path = write_classic(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["optimizer"]
        del file["layers/conv2d_2"]
    with h5py.File(path, "r+") as file:
        file["layers/conv2d_7/vars/0"] = np.ones(7, np.float32)
    assert len(read_hdf5(path).shapes) == 13


def test_arrays_in_both_byte_orders_are_refused(tmp_path: Path) -> None:
    """One bit of an array's type says which."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b"] = np.ones(3, "<f4"), np.ones(3, ">f4")
    with pytest.raises(FormatError, match="b: expected the byte order of a, found the other one"):
        read_hdf5(tmp_path / "x.h5")


def test_lengths_of_four_bytes_are_refused(tmp_path: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    properties.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(str(tmp_path / "x.h5").encode(), h5py.h5f.ACC_TRUNC, properties)) as file:
        file["a"] = np.ones(3)
    with pytest.raises(FormatError, match="expected offsets and lengths of 8 bytes, found 04 04"):
        read_hdf5(tmp_path / "x.h5")
