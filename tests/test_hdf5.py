"""The native file: written and read back, whole or absent."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile import assert_same, tiny_checkpoint

from minimobile.errors import ConfigError, FormatError, InputError
from minimobile.formats import hdf5
from minimobile.formats.guarded_hdf5 import read_hdf5
from minimobile.formats.signatures import is_hdf5
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

PACKAGE = Path(hdf5.__file__).parents[1]
pytestmark = pytest.mark.usefixtures("hdf5_in_this_process")
IN_A_CHILD = ("compressed",)  # what only HDF5's own library could get wrong


def test_write_and_read_give_the_same_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "mit Leerzeichen 猫.h5"
    checkpoint = tiny_checkpoint()
    hdf5.write(path, checkpoint)
    assert is_hdf5(path)
    assert_same(hdf5.read(path), checkpoint)
    assert hdf5.read(path).provenance == {"format": "test", "source": "tiny"}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_float16_is_half_the_size_and_rounds_once(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    hdf5.write(tmp_path / "x.h5", checkpoint, dtype="float16")
    for name, values in hdf5.read(tmp_path / "x.h5").weights.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, checkpoint.weights[name].astype(np.float16).astype(np.float32))


def test_float64_is_stored_rounded_to_float32(tmp_path: Path) -> None:
    weights = {"classifier.bias": np.array([1 / 3, np.nan, np.inf])}
    hdf5.write(tmp_path / "x.h5", dataclasses.replace(tiny_checkpoint(), weights=weights))
    read = hdf5.read(tmp_path / "x.h5").weights["classifier.bias"]
    assert np.array_equal(read, np.array([1 / 3, np.nan, np.inf], np.float32), equal_nan=True)


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65_520.0), ("float16", -1e9), ("float32", 1e39)])
def test_a_value_too_large_for_the_type_is_refused(tmp_path: Path, dtype: str, value: float) -> None:
    checkpoint = dataclasses.replace(tiny_checkpoint(), weights={"classifier.bias": np.array([1.0, value])})
    with pytest.raises(FormatError, match=r"classifier\.bias: expected values that " + dtype):
        hdf5.write(tmp_path / "x.h5", checkpoint, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_1001_labels_and_long_texts_exceed_no_attribute(tmp_path: Path) -> None:
    labels = {index: f"label {index}, " + "x" * (index % 130) for index in range(1001)}
    labels[134] = labels[517]  # as in ImageNet: two classes are called crane
    config = MobileNetV2Config(id2label=labels)
    checkpoint = dataclasses.replace(
        tiny_checkpoint(),
        config=config,
        architecture="MobileNetV2Model",
        processor={"note": "y" * 100_000},
        weights={},
    )
    hdf5.write(tmp_path / "x.h5", checkpoint)
    assert_same(hdf5.read(tmp_path / "x.h5"), checkpoint)
    assert hdf5.read(tmp_path / "x.h5").config.label2id == config.label2id


@pytest.mark.parametrize("labels", [{}, {0: ""}, {0: "trailing\0", 1: "日本"}], ids=["none", "empty", "odd"])
def test_odd_labels_survive_or_are_refused(tmp_path: Path, labels: dict[int, str]) -> None:
    checkpoint = dataclasses.replace(tiny_checkpoint(), config=MobileNetV1Config(id2label=labels))
    try:
        hdf5.write(tmp_path / "x.h5", checkpoint)
    except FormatError as error:
        assert "label" in str(error)
        return
    assert hdf5.read(tmp_path / "x.h5").config == checkpoint.config


def test_any_viewer_shows_the_description(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", tiny_checkpoint())
    with h5py.File(tmp_path / "x.h5") as file:
        assert file.attrs["format"].decode() == "minimobile"
        assert file.attrs["format_version"] == 1
        assert json.loads(file.attrs["config"])["depth_multiplier"] == 0.25
        assert [label.decode() for label in file["labels"]] == ["background", "Käse", "猫"]
        assert file["weights/classifier.weight"].shape == (3, 8)
        assert re.fullmatch("[0-9a-f]{64}", file["weights/classifier.weight"].attrs["sha256"].decode())


def test_read_takes_another_config_of_the_same_kind(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", tiny_checkpoint())
    config = MobileNetV1Config(tf_padding=False)
    assert hdf5.read(tmp_path / "x.h5", config=config).config is config
    with pytest.raises(ConfigError, match="expected a config of mobilenet_v1, got one of mobilenet_v2"):
        hdf5.read(tmp_path / "x.h5", config=MobileNetV2Config())


def test_h34_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"
    hdf5.write(path, tiny_checkpoint())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FormatError, match="No space left on device"):
        hdf5.write(path, tiny_checkpoint(tf_padding=False))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["x.h5"]


def test_h34_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    hdf5.write(path, tiny_checkpoint())
    before = path.read_bytes()
    script = (
        "import os, sys, signal; from hostile import tiny_checkpoint; from minimobile.formats import hdf5\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "hdf5.write(sys.argv[1], tiny_checkpoint(tf_padding=False))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, timeout=300, check=False)
    assert done.returncode < 0
    assert path.read_bytes() == before


def test_h34_no_directory_to_write_to_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected an existing folder to write into, but"):
        hdf5.write(tmp_path / "none" / "x.h5", tiny_checkpoint())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="expected an existing folder to write into, but"):
        hdf5.write(tmp_path / "file" / "x.h5", tiny_checkpoint())


@pytest.mark.parametrize("dtypes", [("<f4", "<f2", "<i8", "u1"), (">f8",)], ids=["little", "big"])
def test_compressed_datasets_are_read_as_h5py_reads_them(tmp_path: Path, dtypes: tuple[str, ...]) -> None:
    """One file, and so one child process, for each byte order."""
    random = np.random.default_rng(0)
    written = {}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for dtype, chunks, shuffle in itertools.product(dtypes, ((2, 3), (5, 7), (10, 13)), (False, True)):
            name, values = f"{dtype}/{chunks}, {shuffle}", random.integers(0, 200, (10, 13)).astype(dtype)
            file.create_dataset(name, data=values, chunks=chunks, compression="gzip", shuffle=shuffle)
            written[name] = values
    read = read_hdf5(tmp_path / "x.h5")
    assert read.shapes.keys() == written.keys()
    for name, values in written.items():
        assert read.read(name).dtype == values.dtype.newbyteorder("=")
        assert np.array_equal(read.read(name), values), name


def test_an_image_in_memory_is_read_like_a_file(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", tiny_checkpoint())
    file = read_hdf5(Path("archive.keras/model.h5"), (tmp_path / "x.h5").read_bytes())
    assert file.read("weights/classifier.bias").shape == (3,)


def test_no_other_module_opens_hdf5_files() -> None:
    users = {
        path.name for path in PACKAGE.rglob("*.py") if re.search(r"^\s*(import|from) h5py", path.read_text(), re.M)
    }
    assert users == {"guarded_hdf5.py", "objects.py", "arrays.py", "serve.py"}
