"""A child process reads others' HDF5 files: whatever becomes of it, here it is one sentence."""

from __future__ import annotations

import multiprocessing
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile import assert_refused
from lookup3 import lookup3

import minimobile
from minimobile import formats
from minimobile.errors import FormatError, UnavailableError
from minimobile.formats import guarded_hdf5, hdf5_process
from minimobile.formats.guarded_hdf5 import read_hdf5

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
DEMO = Path(minimobile.__file__).parent / "demo" / "digits.h5"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = VALUES
    return tmp_path / "x.h5"


def read_values(path: Path) -> list[float]:
    """A function that a process started anew can find."""
    return [float(value) for value in read_hdf5(path).read("a/b").reshape(-1)]


def test_many_threads_read_at_once(path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read_values, [path] * 6)) == [list(range(12))] * 6


def test_a_worker_started_anew_reads(path: Path) -> None:
    """Its processes are daemons, which may start none of multiprocessing's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_values, [path]) == list(range(12))


def test_a_tree_of_records_without_size_is_refused(tmp_path: Path) -> None:
    """libhdf5 divides by the size of a record. The checksum fits: whoever wrote this meant it."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for index in range(40):
            file[f"group/{index}"] = np.float32(index)
    content = bytearray(path.read_bytes())
    place = content.index(b"BTHD")
    content[place + 10 : place + 12] = bytes(2)
    content[place + 34 : place + 38] = struct.pack("<I", lookup3(bytes(content[place : place + 34])))
    path.write_bytes(content)
    assert_refused(read_hdf5, path, "it crashes the HDF5 library .SIG|damaged or truncated")


def test_a_child_without_memory_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is so low that the child may not even be able to say so; the array is larger than what it has to spare.

    64 MB of zeros in a file of 64 kB.
    """
    with h5py.File(path, "a") as file:
        file.create_dataset("zeros", data=np.zeros(2**24, np.float32), compression="gzip", chunks=(2**20,))
    monkeypatch.setattr(hdf5_process, "MEMORY", 2**20)
    assert_refused(read_hdf5, path, "x.h5: (reading it takes more than|this HDF5 file is damaged)")


def test_numbers_are_read_only_where_asked_for(path: Path) -> None:
    file = read_hdf5(path, has_numbers=False)
    assert file.shapes == {"a/b": (3, 4)}
    with pytest.raises(FormatError, match="found none of that name"):
        file.read("a/b")


@pytest.mark.parametrize("interpreter", ["", "/nonexistent/python", "/bin/true", "/bin/cat"])
def test_where_no_child_can_be_started_nothing_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(UnavailableError, match=r"x\.h5: HDF5 files are read in a child process, .* could be started"):
        read_hdf5(path)


@pytest.mark.parametrize("interpreter", ["/bin/true", "/bin/false"])
def test_nor_from_an_archive(path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str) -> None:
    """Its bytes go to a child that does not listen."""
    image = path.read_bytes() + bytes(10**6)
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(UnavailableError, match="none could be started"):
        read_hdf5(Path("x.keras/model.weights.h5"), image)


def test_more_than_a_mobilenet_can_have_is_refused_before_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_process, "ARRAY_LIMIT", 40)
    with pytest.raises(FormatError, match="expected at most 40 bytes of arrays, found 48"):
        read_hdf5(path)
    assert read_hdf5(path, has_numbers=False).shapes == {"a/b": (3, 4)}


def test_a_file_beyond_all_mobilenets_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of holes takes no room on a disk, and would take hours to look through."""
    monkeypatch.setattr(guarded_hdf5, "FILE_LIMIT", 100)
    monkeypatch.setattr(guarded_hdf5, "fetch_contents", None)
    with pytest.raises(FormatError, match=f"at most 100 bytes, found {path.stat().st_size}"):
        read_hdf5(path)


def test_a_frozen_program_is_not_started_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(UnavailableError, match="there is no Python interpreter to start"):
        read_hdf5(path)


def test_our_own_files_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert formats.read(DEMO).config.num_labels == 10


HOSTILE = (
    "btree2_record_count.h5",
    "btree2_record_size_0.h5",
    "cve-2024-32609.h5",
    "keras_heap_address_3_bytes.h5",
    "one_bit_overlap.weights.h5",
)


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_crashed_or_deceived_the_reader(name: str, test_data: Path) -> None:
    with pytest.raises(FormatError, match=name) as caught:
        formats.read(test_data / "hostile" / name)
    assert "\n" not in str(caught.value)
