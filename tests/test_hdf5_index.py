"""The index behind our own HDF5 files: with it no HDF5 library is needed; wrong, it is left or refused."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import assert_refused, assert_same, tiny_checkpoint

from minimobile.formats import hdf5
from minimobile.formats.hdf5_index import MAGIC, read_index


@pytest.fixture
def path(tmp_path: Path) -> Path:
    hdf5.write(tmp_path / "x.h5", tiny_checkpoint())
    return tmp_path / "x.h5"


def test_a_file_of_ours_is_read_without_the_hdf5_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert_same(hdf5.read(path), tiny_checkpoint())


def test_index_and_hdf5_say_the_same(path: Path) -> None:
    index = read_index(path)
    assert index is not None
    with h5py.File(path) as file:
        for name, values in index.arrays.items():
            assert np.array_equal(values, file[name][()])
            assert (values.shape, values.dtype) == (file[name].shape, file[name].dtype)
        for name, pairs in index.attributes.items():
            assert {key: value.decode() if isinstance(value, bytes) else int(value)
                    for key, value in file[f"/{name}"].attrs.items()} == pairs  # fmt: skip


def test_a_file_changed_with_h5py_has_lost_its_index(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "x"
    assert read_index(path) is None
    assert_same(hdf5.read(path), tiny_checkpoint())


@pytest.mark.parametrize("place", [-1, -20, -50, -300])
def test_a_damaged_index_is_left_for_the_hdf5_file(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert read_index(path) is None
    assert_same(hdf5.read(path), tiny_checkpoint())


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any], length: int | None = None) -> Path:
    """Change the index, and let its checksum fit."""
    content = path.read_bytes()
    size = int.from_bytes(content[-56:-48], "little")
    values = json.loads(content[-56 - size : -56])
    change(values)
    text = json.dumps(values).encode()
    before = content[: -56 - size] + text + (len(text) if length is None else length).to_bytes(8, "little")
    path.write_bytes(before + hashlib.sha256(before).digest() + MAGIC)
    return path


def set_row(*row: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda values: values["arrays"].__setitem__("weights/classifier.bias", list(row))


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "overlap": (
        lambda v: v["arrays"]["weights/classifier.bias"].__setitem__(2, v["arrays"]["labels"][2]),
        "of its own",
    ),
    "beyond": (set_row("<f4", [3], 10**9), "of its own"),
    "negative": (set_row("<f4", [3], -12), "of its own"),
    "no-offset": (set_row("<f4", [3]), "expected attributes and arrays"),
    "offset-text": (set_row("<f4", [3], "one"), "expected attributes and arrays"),
    "huge": (set_row("<f4", [2**40, 2**40], 0), "no more data than the file can hold"),
    "negative-shape": (set_row("<f4", [-3], 0), "the type and shape of an array"),
    "shape-text": (set_row("<f4", "3", 0), "the type and shape of an array"),
    "objects": (set_row("|O", [3], 0), "the type and shape of an array"),
    "huge-text": (set_row("|S9999999999", [3], 0), "the type and shape of an array"),
    "no-arrays": (lambda v: v.__delitem__("arrays"), "expected attributes and arrays"),
    "attributes-list": (lambda v: v.__setitem__("attributes", [1]), "expected attributes and arrays"),
    "no-root": (lambda v: v["attributes"].__delitem__(""), "a file that minimobile wrote"),
    "other-bytes": (lambda v: v["arrays"]["labels"].__setitem__(2, 0), "checksum|UTF-8"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_index_is_refused(path: Path, case: str) -> None:
    change, match = HOSTILE[case]
    assert_refused(hdf5.read, rewrite(path, change), match)


@pytest.mark.parametrize("length", [0, 2**63, 10**6])
def test_an_index_of_another_length_is_refused(path: Path, length: int) -> None:
    assert_refused(hdf5.read, rewrite(path, lambda _: None, length), "index: expected")
