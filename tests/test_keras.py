"""Keras files of every form against the arrays that went in; and hostile ones (H19 to H24)."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import FOREIGN, assert_refused, fetch_here, flip_bytes, tiny_checkpoint, truncations
from keras_files import (
    Spec,
    chain_config,
    expected_weights,
    v1_layers,
    write_archive,
    write_legacy,
    write_numbered,
)

import minimobile as mm
from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import guarded_hdf5, hdf5, hdf5_kinds, hdf5_process
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.keras import keras

Write = Callable[[Path, list[Spec], dict[str, Any]], Path]
IN_A_CHILD = ("form", "heap", "changed")  # where the child itself is tested, and where HDF5 could crash


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read without a child process, which takes a fifth of a second for each file, in tests of what is in a file."""
    if not any(word in request.node.name for word in IN_A_CHILD):
        monkeypatch.setattr(guarded_hdf5, "fetch_contents", fetch_here)


def write_nameless(path: Path, specs: list[Spec], config: dict[str, Any]) -> Path:
    """Number the layers of a class in the order of the configuration, as Keras does."""
    order = [layer["config"]["name"] for layer in config["config"]["layers"]]
    return write_archive(path, sorted(specs, key=lambda spec: order.index(spec.name)), config, has_names=False)


def write_as_keras_2_12_on_windows(path: Path, specs: list[Spec], config: dict[str, Any]) -> Path:
    """Every layer counted twice, and backslashes in the groups' names."""
    write_nameless(path, specs, config)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    image = io.BytesIO()
    with h5py.File(io.BytesIO(members["model.weights.h5"])) as file, h5py.File(image, "w") as target:
        for name, group in file["layers"].items():
            base, _, number = name.rpartition("_") if name[-1].isdigit() and "_" in name else (name, "", "0")
            is_plain = not number.isdigit()  # batch_normalization, conv2d: the first of its class
            doubled = name if is_plain or number == "0" else f"{base}_{2 * int(number)}"
            file.copy(group["vars"], target.create_group(f"_layer_checkpoint_dependencies\\{doubled}"), "vars")
    members["model.weights.h5"] = image.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


WRITERS: dict[str, Write] = {
    "legacy": write_legacy,
    "archive": write_archive,
    "archive without names": write_nameless,
    "archive of Keras 2.12": write_as_keras_2_12_on_windows,
}


def assert_holds(checkpoint: Checkpoint, specs: list[Spec]) -> None:
    """Compare bit for bit with what was written."""
    expected = expected_weights(specs)
    assert set(checkpoint.weights) == set(expected)
    assert set(checkpoint.mapped.values()) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(checkpoint.weights[name], values), name


@pytest.mark.parametrize(
    ("writer", "form"),
    [
        *(("legacy", form) for form in ("keras2", "keras3", "sequential")),
        *(("archive", form) for form in ("keras2", "keras3", "sequential")),
        ("archive without names", "keras3"),
        ("archive of Keras 2.12", "keras2"),
    ],
)
def test_every_form_of_a_file_gives_the_same_network(tmp_path: Path, writer: str, form: str) -> None:
    specs = v1_layers(is_generic=writer != "legacy")
    path = WRITERS[writer](tmp_path / "model", specs, chain_config(specs, form))
    assert (keras if path.read_bytes()[:2] == b"PK" else hdf5_kinds).recognise(path)
    checkpoint = keras.read(path)
    assert_holds(checkpoint, specs)
    assert checkpoint.architecture == "MobileNetV1ForImageClassification"
    assert checkpoint.dialect == "keras"
    config = checkpoint.config
    assert (config.width_multiplier, config.num_labels, config.image_size) == (0.25, 3, 32)
    assert (config.hidden_act, config.tf_padding, config.bottom_right_padding) == ("relu6", True, "depthwise")
    assert checkpoint.processor is not None
    assert checkpoint.processor["size"] == {"height": 32, "width": 32}
    assert not checkpoint.processor["do_center_crop"]


WEIGHTS_ONLY: dict[str, Callable[[Path, list[Spec]], object]] = {
    "legacy": lambda path, specs: write_legacy(path, specs, None),
    "numbered": write_numbered,
    "numbered without names": lambda path, specs: write_numbered(path, specs, has_names=False),
}


@pytest.mark.parametrize("writer", WEIGHTS_ONLY)
def test_weights_alone_are_read_by_the_names_of_applications(tmp_path: Path, writer: str) -> None:
    specs = v1_layers()[:-1]  # without a top
    WEIGHTS_ONLY[writer](tmp_path / "mobilenet.weights.h5", specs)
    checkpoint = keras.read(tmp_path / "mobilenet.weights.h5")
    assert_holds(checkpoint, specs)
    assert checkpoint.architecture == "MobileNetV1Model"
    assert checkpoint.config.bottom_right_padding == "depthwise"
    assert checkpoint.config.layer_norm_eps == 1e-3


@pytest.mark.parametrize("writer", WEIGHTS_ONLY)
@pytest.mark.parametrize("change", ["another head", "a layer less", "generic names"])
def test_weights_alone_of_another_network_are_refused(tmp_path: Path, writer: str, change: str) -> None:
    specs = v1_layers(is_generic=change == "generic names")
    if change == "generic names" and writer == "numbered without names":
        specs = [spec for spec in specs if spec.class_name != "ZeroPadding2D"]  # as hand-written ones have none
    specs = [spec for spec in specs if not (change == "a layer less" and spec.name in ("conv_pw_13", "head"))]
    path = tmp_path / "x.h5"
    WEIGHTS_ONLY[writer](path, specs)
    with pytest.raises(FormatError, match=r"x\.h5.* Keras Applications .*save the whole model in Keras"):
        keras.read(path)


def test_mm_load_runs_a_keras_file(tmp_path: Path) -> None:
    specs = v1_layers()
    model = mm.load(write_archive(tmp_path / "model.keras", specs, chain_config(specs, "keras3")))
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert model(pixels).logits.shape == (2, 3)


def nested(specs: list[Spec], node: int = 1) -> dict[str, Any]:
    """Return a model that scales pixels, calls the layers up to the pool as a model, and then the rest.

    Keras 2 counts the calls of such a model from 1.
    """
    base = chain_config(specs[:-2], "keras2", "base")
    outer = [
        Spec("pixels", "InputLayer", {"batch_input_shape": [None, 48, 64, 3]}),
        Spec("scaling", "Rescaling", {"scale": 1 / 127.5, "offset": -1}),
        Spec("base", "Functional"),
        Spec("dropout", "Dropout"),
        *specs[-2:],
    ]
    config = chain_config(outer, "keras2")
    for layer in config["config"]["layers"]:
        if layer["name"] == "base":
            layer["config"] = {**base["config"]}
        if layer["name"] == "dropout":
            layer["inbound_nodes"] = [[["base", node, 0, {}]]]
    return config


@pytest.mark.parametrize("node", [0, 1])
def test_a_model_used_as_a_layer_is_opened_and_scaling_becomes_the_processors(tmp_path: Path, node: int) -> None:
    specs = v1_layers()
    path = write_legacy(tmp_path / "x.h5", [], nested(specs, node))
    with h5py.File(path, "r+") as file:
        for spec in specs:
            outer = "base" if spec in specs[:-2] else spec.name
            for role, values in spec.arrays.items():
                file[f"model_weights/{outer}/{spec.name}/{role}:0"] = values
        file["optimizer_weights/adam/conv1_kernel_momentum:0"] = np.zeros(3, np.float32)
    checkpoint = keras.read(path)
    assert_holds(checkpoint, specs)
    assert checkpoint.config.image_size == (48, 64)  # the outer model's
    assert checkpoint.processor is not None
    assert checkpoint.processor["image_mean"] == checkpoint.processor["image_std"] == [0.5, 0.5, 0.5]
    assert checkpoint.provenance == {
        "dialect": "keras",
        "format": "keras",
        "source": "x.h5",
        "producer": "Keras 2.8.0 (tensorflow)",
        "input_scaling": "0.00784314 * x -1 of pixels up to 255, done by the processor",
    }
    assert "optimiser" in checkpoint.ignored["optimizer_weights/adam/conv1_kernel_momentum:0"]


def test_an_archive_with_a_model_as_a_layer(tmp_path: Path) -> None:
    specs = v1_layers()
    outer = [Spec("base", "Functional"), *specs[-2:]]
    path = write_archive(tmp_path / "x.keras", outer, nested(specs))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "w.h5").write_bytes(members["model.weights.h5"])
    write_numbered(tmp_path / "base.h5", specs[:-2])
    with h5py.File(tmp_path / "w.h5", "r+") as file, h5py.File(tmp_path / "base.h5") as base:
        base.copy("layers", file["layers/functional"])
    members["model.weights.h5"] = (tmp_path / "w.h5").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert_holds(keras.read(path), specs)


def test_describe_tells_also_of_what_is_no_mobilenet(tmp_path: Path) -> None:
    specs = v1_layers()[:BEGINNING]
    strange = [*specs[:2], Spec("squeeze", "SqueezeExcite"), Spec("swish", "Swish"), *specs[2:]]
    path = write_archive(tmp_path / "x.keras", specs, chain_config(strange, "keras3"))
    described = keras.describe(path)
    assert (described.format, described.producer) == ("Keras archive", "Keras 3.15.1")
    assert "BatchNormalization 1" in described.facts["layers"]
    assert "SqueezeExcite 1" in described.facts["layers"]
    assert ("layers/conv2d/vars/0", (3, 3, 3, 8), "float32") in described.entries
    assert_refused(keras.read, path, r"layer 'squeeze': expected a layer that MobileNets have, found a SqueezeExcite")
    legacy = keras.describe(write_legacy(tmp_path / "x.h5", specs, chain_config(specs, "keras2")))
    assert (legacy.format, legacy.producer) == ("Keras HDF5 model", "Keras 2.8.0 (tensorflow)")


def test_an_hdf5_file_of_another_program_is_described_as_that(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["series/a/values"] = file["series/b/values"] = np.zeros(3)
    described = keras.describe(tmp_path / "x.h5")
    assert (described.format, described.dialect) == ("HDF5 file of unknown origin", None)
    assert_refused(keras.read, tmp_path / "x.h5", "expected")


def test_recognise_leaves_other_files_alone(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "ours.h5", tiny_checkpoint())
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    for name, (content, _) in FOREIGN.items():
        (tmp_path / name).write_bytes(content)
    assert not any(keras.recognise(path) for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "absent"))


def spoil(path: Path, change: Callable[[h5py.File], object], is_whole: bool = False) -> Path:
    """Write the beginning of a network as a legacy file and let `change` spoil it."""
    specs = v1_layers()[: None if is_whole else BEGINNING]
    with h5py.File(write_legacy(path, specs, chain_config(specs, "keras2")), "r+") as file:
        change(file)
    return path


BEGINNING = 5  # input, convolution, batch norm, activation, depthwise convolution
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
