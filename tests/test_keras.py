"""Keras files of every form against the arrays that went in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import FOREIGN, assert_refused, tiny_checkpoint
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

import minimobile as mm
from minimobile.errors import FormatError
from minimobile.formats import hdf5
from minimobile.formats.keras import keras
from minimobile.formats.signatures import is_hdf5, is_keras_archive

Write = Callable[[Path, list[Spec], dict[str, Any]], Path]
pytestmark = pytest.mark.usefixtures("hdf5_in_this_process")
IN_A_CHILD = ("form",)  # where the child itself is tested


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
    assert (is_keras_archive if path.read_bytes()[:2] == b"PK" else is_hdf5)(path)
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
    assert not any(is_keras_archive(path) for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "absent"))
