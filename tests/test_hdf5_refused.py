"""Hostile and damaged native files (H19 to H22), and files that are none: refused in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import FOREIGN, assert_refused, assert_same, fetch_here, flip_bytes, tiny_checkpoint, truncations

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import guarded_hdf5, hdf5
from minimobile.formats.guarded_hdf5 import read_hdf5
from minimobile.formats.signatures import is_hdf5

pytestmark = pytest.mark.usefixtures("hdf5_in_this_process")
# What HDF5's own library does with bytes: filters, texts and lists of its heap, other files. Types are told here.
IN_A_CHILD = ("lzf", "fletcher32", "scaleoffset", "object", "vlen", "external", "virtual", "inflates")


def native(path: Path, change: Callable[[h5py.File], Any]) -> Path:
    """Write a good file and let `change` spoil it."""
    hdf5.write(path, tiny_checkpoint())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace_weight(file: h5py.File, **how: Any) -> None:
    del file["weights/classifier.bias"]
    file.create_dataset("weights/classifier.bias", **how)


def link_soft(file: h5py.File) -> None:
    file.move("weights/classifier.bias", "elsewhere")
    file["weights/classifier.bias"] = h5py.SoftLink("/elsewhere")


def link_cycle(file: h5py.File) -> None:
    file["weights/again"] = file["/"]


def shift_type(file: h5py.File) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)  # half a double in four bytes
    kind.set_ebias(1023)
    h5py.h5d.create(file["weights"].id, b"odd", kind, h5py.h5s.create_simple((2,))).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.ones(2, np.float32)
    )


HOSTILE: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "H19-soft-link-leaf": (link_soft, "found a link .SoftLink"),
    "H19-soft-link-dangling": (lambda f: f.__setitem__("x", h5py.SoftLink("/nowhere")), "found a link .SoftLink"),
    "H19-cycle": (link_cycle, "second link to one"),
    "H19-two-links": (lambda f: f.__setitem__("x", f["labels"]), "second link to one"),
    "H19-deep": (lambda f: f.create_group("/".join("a" * 60)), "32 levels"),
    "H21-nothing-stored": (
        lambda f: replace_weight(f, shape=(10**12,), dtype="f4", chunks=(1024,), compression="gzip"),
        "no more data than the file can hold",
    ),
    "H21-nothing-stored-small": (
        lambda f: replace_weight(f, shape=(3,), dtype="f4", chunks=(3,), fillvalue=1),
        "data is missing",
    ),
    "H21-contiguous-nothing-stored": (lambda f: replace_weight(f, shape=(10**10,), dtype="f4"), "found 0 in the file"),
    "H21-huge-chunk": (
        lambda f: replace_weight(f, shape=(3,), dtype="f4", chunks=(2**29,), maxshape=(None,)),
        "no more data than the file can hold",
    ),
    "H21-many-large": (
        lambda f: [
            f.create_dataset(f"x{i}", data=np.zeros(4 * 2**20), chunks=True, compression="gzip") for i in range(3)
        ],
        "no more data than the file can hold",
    ),
    "H22-lzf": (lambda f: replace_weight(f, data=np.ones(3, "f4"), chunks=(3,), compression="lzf"), "found filters"),
    "H22-fletcher32": (
        lambda f: replace_weight(f, data=np.ones(3, "f4"), chunks=(3,), fletcher32=True),
        "found filters",
    ),
    "H22-scaleoffset": (
        lambda f: replace_weight(f, data=np.ones(3, "i4"), chunks=(3,), scaleoffset=3),
        "found filters",
    ),
    "H22-object": (
        lambda f: replace_weight(f, data=np.array(["a"], object), dtype=h5py.string_dtype()),
        "variable length",
    ),
    "H22-vlen": (lambda f: replace_weight(f, shape=(2,), dtype=h5py.vlen_dtype("f4")), "another data type"),
    "H22-reference": (lambda f: replace_weight(f, shape=(2,), dtype=h5py.ref_dtype), "another data type"),
    "H22-compound": (lambda f: replace_weight(f, data=np.zeros(2, [("a", "f4")])), "another data type"),
    "H22-enum": (lambda f: replace_weight(f, data=np.ones(2, bool)), "another data type"),
    "H22-array": (lambda f: replace_weight(f, shape=(2,), dtype=np.dtype(("f4", (3,)))), "another data type"),
    "H22-opaque": (lambda f: replace_weight(f, data=np.zeros(2, "V4")), "another data type"),
    "H22-complex": (lambda f: replace_weight(f, data=np.zeros(2, "c8")), "another data type"),
    "H22-odd-float": (shift_type, "another data type"),
    "H22-named-type": (lambda f: f.__setitem__("x", np.dtype("f8")), "groups and datasets only"),
    "H22-empty": (lambda f: replace_weight(f, data=h5py.Empty("f4")), "empty dataset"),
    "type-int": (lambda f: replace_weight(f, data=np.ones(3, "i4")), "float32 or float16"),
    "type-float64": (lambda f: replace_weight(f, data=np.ones(3, "f8")), "float32 or float16"),
    "shape": (lambda f: replace_weight(f, data=np.ones(4, "f4")), "checksum of the description"),
    "value": (lambda f: f["weights/classifier.bias"].__setitem__(0, 1), r"classifier\.bias: the checksum"),
    "checksum": (lambda f: f["weights/classifier.bias"].attrs.__setitem__("sha256", "0"), "checksum of the desc"),
    "missing-weight": (lambda f: f["weights"].__delitem__("classifier.bias"), "checksum of the description"),
    "another-label": (lambda f: f["labels"].__setitem__(0, b"cat"), "checksum of the description"),
    "no-labels": (lambda f: f.__delitem__("labels"), "'labels'"),
    "no-config": (lambda f: f.attrs.__delitem__("config"), "the text 'config'"),
    "config-number": (lambda f: f.attrs.__setitem__("config", 3), "the text 'config'"),
    "config-changed": (
        lambda f: f.attrs.__setitem__("config", f.attrs["config"].decode().replace("0.25", "0.35")),
        "checksum of the description",
    ),
    "version": (lambda f: f.attrs.__setitem__("format_version", 2), "found 2; a later minimobile"),
    "another-format": (lambda f: f.attrs.__setitem__("format", "keras"), "another HDF5 file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, case: str) -> None:
    change, match = HOSTILE[case]
    assert_refused(hdf5.read, native(tmp_path / "x.h5", change), match)


@pytest.mark.parametrize("place", ["weights/classifier.bias", "weights"], ids=["leaf", "intermediate"])
def test_h19_the_target_of_an_external_link_is_never_opened(tmp_path: Path, place: str) -> None:
    """The target is a pipe: opening it would wait for ever."""
    os.mkfifo(tmp_path / "target.h5")

    def change(file: h5py.File) -> None:
        del file[place]
        file[place] = h5py.ExternalLink("target.h5", "/x")

    assert_refused(hdf5.read, native(tmp_path / "x.h5", change), "found a link .ExternalLink")


def test_h20_external_storage_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 2)

    def change(file: h5py.File) -> None:
        replace_weight(file, shape=(3,), dtype="f4", external=[(str(secret), 0, 12)])

    assert_refused(hdf5.read, native(tmp_path / "x.h5", change), "external storage")


def test_h20_a_virtual_dataset_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "source.h5")

    def change(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((3,), "f4", maxshape=(None,))
        layout[:] = h5py.VirtualSource(tmp_path / "source.h5", "x", (3,), maxshape=(None,))
        del file["weights/classifier.bias"]
        file.create_virtual_dataset("weights/classifier.bias", layout)

    assert_refused(hdf5.read, native(tmp_path / "x.h5", change), "virtual dataset")


def test_h21_a_chunk_that_inflates_beyond_its_size_is_refused(tmp_path: Path) -> None:
    import zlib

    def change(file: h5py.File) -> None:
        replace_weight(file, shape=(3000,), dtype="f4", chunks=(3000,), compression="gzip")
        bomb = zlib.compress(bytes(100 * 2**20), 1)  # 400 kB that say 100 MB
        file["weights/classifier.bias"].id.write_direct_chunk((0,), bomb)

    def read(path: Path) -> None:
        read_hdf5(path)

    assert_refused(read, native(tmp_path / "x.h5", change), "inflates to more")


def test_h22_an_attribute_that_lists_texts_of_variable_length_is_not_read(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file.attrs.create("x", np.array(["a", "b"], object), dtype=h5py.string_dtype())

    assert "x" not in read_hdf5(native(tmp_path / "x.h5", change)).attributes[""]
    assert_same(hdf5.read(tmp_path / "x.h5"), tiny_checkpoint())


def test_h22_an_unknown_filter_is_refused_and_no_plugin_is_sought(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"

    def change(file: h5py.File) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((3,))
        properties.set_filter(32_123, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        h5py.h5d.create(file["weights"].id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), dcpl=properties)

    native(path, change)
    assert_refused(hdf5.read, path, r"found filters \[32123\]")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(FOREIGN[name][0])
    assert not is_hdf5(path)
    assert_refused(hdf5.read, path, FOREIGN[name][1])


def test_another_hdf5_file_is_not_ours(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="found another HDF5 file"):
        hdf5.read(tmp_path / "x.h5")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    hdf5.write(path, tiny_checkpoint())
    end = without_index(path)
    for content in truncations(path.read_bytes()):
        path.write_bytes(content)
        if len(content) < end:
            with pytest.raises(MinimobileError):
                hdf5.read(path)
        else:
            assert_same(hdf5.read(path), tiny_checkpoint())


def without_index(path: Path) -> int:
    """Return the size that a native file would have without its index."""
    content = path.read_bytes()
    return len(content) - 56 - int.from_bytes(content[-56:-48], "little")


def read_flipped(path: Path, count: int, seed: int) -> int:
    """Read the file with one bit turned, `count` times; return how often it was read, always to the same checkpoint.

    Not counted is what was turned in the index, which the file can do without.
    """
    end = without_index(path)
    guarded_hdf5.fetch_contents = fetch_here
    loaded = 0
    for place in flip_bytes(path, count, seed):
        try:
            checkpoint = hdf5.read(path)
        except MinimobileError:
            continue
        loaded += place < end
        assert_same(checkpoint, tiny_checkpoint())
    return loaded


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_flipped_byte_is_noticed_or_of_no_consequence(tmp_path: Path, count: int) -> None:
    """In a child process, because the HDF5 library may crash; the checksums leave nothing else to happen."""
    path = tmp_path / "x.h5"
    hdf5.write(path, tiny_checkpoint())
    script = (
        "import sys, pathlib; from test_hdf5_refused import read_flipped\n"
        "print(read_flipped(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 0))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(count)],
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < count / 100


def test_a_file_that_ends_in_its_first_bytes_says_so(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", tiny_checkpoint())
    (tmp_path / "x.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:10])
    assert_refused(hdf5.read, tmp_path / "x.h5", "truncated: found 10 bytes; download it again")
