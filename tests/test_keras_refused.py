"""Hostile and damaged Keras files (H19 to H24): refused in one sentence, and no code in them is run."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import assert_refused, flip_bytes, truncations
from keras_files import (
    BEGINNING,
    Spec,
    assert_holds,
    chain_config,
    v1_layers,
    write_archive,
    write_legacy,
    write_numbered,
)

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import hdf5_process
from minimobile.formats.keras import keras

pytestmark = pytest.mark.usefixtures("hdf5_in_this_process")
IN_A_CHILD = ("heap", "changed")  # where the child itself is tested, and where HDF5 could crash


def spoil(path: Path, change: Callable[[h5py.File], object], is_whole: bool = False) -> Path:
    """Write the beginning of a network as a legacy file and let `change` spoil it."""
    specs = v1_layers()[: None if is_whole else BEGINNING]
    with h5py.File(write_legacy(path, specs, chain_config(specs, "keras2")), "r+") as file:
        change(file)
    return path


CONV1 = "model_weights/conv1/conv1/kernel:0"


def replace(name: str, **how: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def link(name: str, to: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = to

    return change


def make_virtual(file: h5py.File) -> None:
    del file[CONV1]
    layout = h5py.VirtualLayout((3, 3, 3, 8), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 3, 3, 8))
    file.create_virtual_dataset(CONV1, layout)


HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "H19-soft-link": (link(CONV1, h5py.SoftLink("/elsewhere")), "links are not followed"),
    "H19-external-link": (link(CONV1, h5py.ExternalLink("other.h5", "/x")), "links are not followed"),
    "H19-link-between": (link("model_weights/conv1", h5py.ExternalLink("other.h5", "/x")), "links are not followed"),
    "H19-cycle": (lambda file: file["model_weights"].__setitem__("again", file["/"]), "every object once"),
    "H20-virtual": (make_virtual, "virtual dataset"),
    "H21-bomb": (
        replace(CONV1, shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000), compression="gzip"),
        "no more data than the file can hold",
    ),
    "H21-bomb-not-needed": (
        lambda file: file.create_dataset("x", shape=(10**12,), dtype="f4", chunks=(10**6,)),
        "no more data than the file can hold",
    ),
    "H22-filter": (replace(CONV1, data=np.ones((3, 3, 3, 8), "f4"), compression="lzf"), "found filters"),
    "H22-compound": (replace(CONV1, data=np.zeros(2, [("a", "f4")])), "another data type"),
    "H22-objects": (replace(CONV1, data=np.array(["a"], object), dtype=h5py.string_dtype()), "variable length"),
    "H22-integers": (replace(CONV1, data=np.ones((3, 3, 3, 8), "i1")), "expected floating-point numbers, found int8"),
    "another-shape": (replace(CONV1, data=np.ones((3, 3, 3, 9), "f4")), "one number per channel|expected"),
    "another-rank": (replace(CONV1, data=np.ones((3, 3, 3), "f4")), "a weight of 4 dimensions"),
    "an-array-less": (lambda file: file.__delitem__(CONV1), "'conv1': expected the arrays kernel"),
    "an-array-more": (
        lambda file: file.create_dataset("model_weights/conv1/conv1/lora:0", data=np.zeros(3)),
        "expected the arrays kernel, as the model's config says, found kernel, lora",
    ),
    "two-of-a-name": (
        lambda file: file.create_dataset("model_weights/conv1/conv1/kernel:1", data=np.zeros(3)),
        "expected one array of a name",
    ),
    "H24-config-a-number": (lambda file: file.attrs.__setitem__("model_config", 3), "bytes of JSON"),
    "H24-config-no-json": (lambda file: file.attrs.__setitem__("model_config", "{'a': 1}"), "expected valid JSON"),
    "H24-config-a-list": (lambda file: file.attrs.__setitem__("model_config", "[1]"), "expected a JSON object"),
    "H24-config-nested": (
        lambda file: file.attrs.__setitem__("model_config", '{"a":' + 10**5 * "[" + 10**5 * "]" + "}"),
        "nested too deeply",
    ),
    "H24-config-of-11-MB": (
        lambda file: file.attrs.__setitem__("model_config", json.dumps({"x": "y" * 11 * 10**6})),
        "expected at most 1048576 bytes",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, case: str) -> None:
    change, match = HOSTILE[case]
    assert_refused(keras.read, spoil(tmp_path / "x.h5", change), match)


def test_h19_the_target_of_an_external_link_is_never_opened(tmp_path: Path) -> None:
    """The target is a pipe: opening it would wait for ever."""
    os.mkfifo(tmp_path / "other.h5")
    path = spoil(tmp_path / "x.h5", link("model_weights/conv1", h5py.ExternalLink("other.h5", "/x")))
    assert_refused(keras.read, path, "links are not followed")


def test_h23_a_heap_of_texts_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libhdf5 walks it for ever, for the free space that ends it has no size; until its time is up."""
    monkeypatch.setattr(hdf5_process, "SECONDS", 1)
    path = small_legacy(tmp_path / "x.h5")
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 16
    while content[place : place + 2] != bytes(2):  # to the object of index 0
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.h5: .*reading it did not end within 1 seconds"):
        keras.read(path)


def test_h20_external_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(216 * 4))
    path = spoil(tmp_path / "x.h5", replace(CONV1, shape=(216,), dtype="f4", external=[("raw", 0, 216 * 4)]))
    assert_refused(keras.read, path, "external storage")


@pytest.mark.parametrize("names", [np.zeros(3), "conv1", [b"\xff\xfe"]], ids=["numbers", "one text", "no UTF-8"])
def test_h24_what_layer_names_says_changes_nothing_or_is_refused(tmp_path: Path, names: Any) -> None:
    def change(file: h5py.File) -> None:
        file["model_weights"].attrs["layer_names"] = names

    path = spoil(tmp_path / "x.h5", change, is_whole=True)
    try:
        assert_holds(keras.read(path), v1_layers())
    except FormatError as error:
        assert "damaged" in str(error)


STRANGE_LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "Lambda": (
        {"class_name": "Lambda", "config": {"name": "x", "function": ["4wEAAAAAAAAAAAAA", None, None]}},
        "layer 'x': expected a layer that MobileNets have, found a Lambda",
    ),
    "Popen": (
        {"class_name": "Popen", "module": "subprocess", "config": {"name": "x", "args": ["touch", "executed"]}},
        "layer 'x': expected a layer of Keras itself, found 'Popen' of the module 'subprocess'",
    ),
    "own-class-of-a-known-name": (
        {"class_name": "ReLU", "module": "builtins", "registered_name": "mine>ReLU", "config": {"name": "x"}},
        "found 'ReLU' of the module 'builtins'",
    ),
    "custom": ({"class_name": "Custom>ReLU", "config": {"name": "x"}}, "found a Custom>ReLU"),
    "lambda-as-activation": (
        {"class_name": "Activation", "config": {"name": "x", "activation": {"class_name": "__lambda__"}}},
        "expected an activation among relu, relu6, softmax, sigmoid, found '__lambda__'",
    ),
    "function-of-a-module": (
        {
            "class_name": "TFOpLambda",
            "config": {"name": "x", "function": "io.write_file"},
        },
        "found a io.write_file",
    ),
}


@pytest.mark.parametrize("form", ["keras2", "keras3", "sequential"])
@pytest.mark.parametrize("case", STRANGE_LAYERS)
def test_h24_a_layer_with_code_is_named_and_never_run(tmp_path: Path, case: str, form: str) -> None:
    layer, match = STRANGE_LAYERS[case]
    specs = v1_layers()[:BEGINNING]
    chain = [*specs[:4], Spec("x", "ReLU"), *specs[4:]]
    config = chain_config(chain, form)
    for entry in config["config"]["layers"]:
        if entry["config"]["name"] == "x":
            entry.update(layer)
    assert_refused(keras.read, write_archive(tmp_path / "x.keras", specs, config), match)


ARCHIVES: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "no-config": (lambda members: members.pop("config.json"), r"found no config\.json"),
    "no-weights": (lambda members: members.pop("model.weights.h5"), r"found no model\.weights\.h5"),
    "weights-a-text": (lambda members: members.update({"model.weights.h5": b"text\n" * 9}), "expected an HDF5 file"),
    "config-a-list": (lambda members: members.update({"config.json": b"[]"}), "expected a JSON object"),
    "config-of-11-MB": (
        lambda members: members.update({"config.json": b'{"x": "' + b"y" * 11 * 10**6 + b'"}'}),
        "at most 1048576 bytes",
    ),
    "name-leads-out": (lambda members: members.update({"../evil": b""}), "plain relative name"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_is_refused(tmp_path: Path, case: str) -> None:
    change, match = ARCHIVES[case]
    path = small_archive(tmp_path / "x.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert_refused(keras.read, path, match)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}" + 10**6 * " ")
    assert_refused(keras.read, path, "found a compressed one")


@pytest.mark.slow
def test_a_configuration_of_empty_dicts_takes_24_times_its_size_and_no_more_than_allowed(tmp_path: Path) -> None:
    text = '{"class_name": [' + "{}," * 340_000 + "{}]}"
    assert_refused(keras.read, write_archive(tmp_path / "x.keras", [], text), "class_name: expected str")


def small_archive(path: Path) -> Path:
    specs = v1_layers()[:BEGINNING]
    return write_archive(path, specs, chain_config(specs, "keras3"))


def small_legacy(path: Path) -> Path:
    specs = v1_layers()[:BEGINNING]
    return write_legacy(path, specs, chain_config(specs, "keras2"))


def survive(path: Path) -> None:
    """Read and describe: a checkpoint of finite or infinite floats, or one of our errors."""
    for function in (keras.read, keras.describe):
        try:
            function(path)
        except MinimobileError as error:
            assert path.name in str(error)


@pytest.mark.parametrize("write", [small_archive, small_legacy])
def test_truncated_and_changed_files_are_refused_or_read(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "x.bin")
    content = path.read_bytes()
    for _ in flip_bytes(path, 3, seed=4):
        survive(path)
    for part in truncations(content, len(content) // 4):
        path.write_bytes(part)
        assert_damaged(path)


def assert_damaged(path: Path) -> None:
    with pytest.raises(MinimobileError):
        keras.read(path)


@pytest.mark.slow
@pytest.mark.parametrize("write", [small_archive, small_legacy])
def test_500_changed_bytes(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "x.bin")
    for _ in flip_bytes(path, 500, seed=5):
        survive(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow")  # of what a weight became, cast to float32
@pytest.mark.parametrize("form", ["legacy", "weights"])
def test_300_changed_bytes_and_every_truncation_of_a_whole_network(tmp_path: Path, form: str) -> None:
    specs = v1_layers(2)[: -1 if form == "weights" else None]
    path = tmp_path / "x.bin"
    if form == "legacy":
        write_legacy(path, specs, chain_config(specs, "keras2"))
    else:
        write_numbered(path, specs)
    content = path.read_bytes()
    for _ in flip_bytes(path, 300, seed=6):
        survive(path)
    for part in truncations(content, 97):
        path.write_bytes(part)
        assert_damaged(path)
