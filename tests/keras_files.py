"""Keras files without Keras: a small MobileNet V1 as a list of layers, and the ways in which Keras writes one.

Facts of the layouts were taken from files that Keras 3.15 and TF-Keras 2.21 wrote.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.mobilenet_v1 import SEPARABLE_LAYERS

GROUPS = {  # class -> what Keras 3 calls its groups
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "BatchNormalization": "batch_normalization",
    "ReLU": "re_lu",
    "ZeroPadding2D": "zero_padding2d",
    "Dense": "dense",
    "GlobalAveragePooling2D": "global_average_pooling2d",
    "Functional": "functional",
}


@dataclass
class Spec:
    """One layer: its arrays by Keras' names and in Keras' order, and ours with their canonical names."""

    name: str
    class_name: str
    config: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    ours: dict[str, NDArray[Any]] = field(default_factory=dict)


BEGINNING = 5  # of `v1_layers`: input, convolution, batch norm, activation, depthwise convolution


def v1_layers(width: int = 8, classes: int = 3, channels: int = 3, is_generic: bool = False) -> list[Spec]:
    """Return a V1 whose layers have 1/32 `width` of the paper's channels, as Applications builds it, with a Dense end.

    `is_generic` leaves out Applications' names: conv2d_7, batch_normalization_12.
    """
    rng = np.random.default_rng(7)
    specs = [Spec("input_1", "InputLayer", {"batch_input_shape": [None, 32, 32, channels]})]

    def add(name: str, class_name: str, config: dict[str, Any], arrays: Any = (), ours: Any = ()) -> None:
        if is_generic:
            number = sum(spec.class_name == class_name for spec in specs)
            name = f"{GROUPS[class_name]}_{number + 7}"
        specs.append(Spec(name, class_name, config, dict(arrays), dict(ours)))

    def draw(*shape: int) -> NDArray[Any]:
        return rng.standard_normal(shape).astype(np.float32)

    def add_convolution(name: str, canonical: str, outputs: int, inputs: int, stride: int, depthwise: bool) -> None:
        side = 1 if "pw" in name else 3
        weight = draw(outputs, 1 if depthwise else inputs, side, side)  # PyTorch's layout
        config: dict[str, Any] = {"strides": [stride, stride], "padding": "same", "use_bias": False}
        if depthwise and stride == 2:
            add(name.replace("dw", "pad"), "ZeroPadding2D", {"padding": [[0, 1], [0, 1]]})
            config["padding"] = "valid"
        kernel = weight.transpose(2, 3, 0, 1) if depthwise else weight.transpose(2, 3, 1, 0)
        add(
            name,
            "DepthwiseConv2D" if depthwise else "Conv2D",
            config,
            {"depthwise_kernel" if depthwise else "kernel": kernel},
            {f"mobilenet_v1.{canonical}.convolution.weight": weight},
        )
        roles = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        norm = {role: np.abs(draw(outputs)) + 0.5 for role in roles}
        ours = {f"mobilenet_v1.{canonical}.normalization.{roles[role]}": values for role, values in norm.items()}
        add(f"{name}_bn", "BatchNormalization", {"axis": [3], "epsilon": 1e-3}, norm, ours)
        add(f"{name}_relu", "ReLU", {"max_value": 6.0})

    add_convolution("conv1", "conv_stem", width, channels, 2, False)
    inputs = width
    for index, (base, stride) in enumerate(SEPARABLE_LAYERS):
        outputs = base * width // 32
        add_convolution(f"conv_dw_{index + 1}", f"layer.{2 * index}", inputs, inputs, stride, True)
        add_convolution(f"conv_pw_{index + 1}", f"layer.{2 * index + 1}", outputs, inputs, 1, False)
        inputs = outputs
    add("pool", "GlobalAveragePooling2D", {})
    weight, bias = draw(classes, inputs), draw(classes)
    head = {"classifier.weight": weight, "classifier.bias": bias}
    add("head", "Dense", {"activation": "softmax"}, {"kernel": weight.T, "bias": bias}, head)
    return specs


def expected_weights(specs: list[Spec]) -> dict[str, NDArray[Any]]:
    """Return our arrays by canonical name."""
    return {name: values for spec in specs for name, values in spec.ours.items()}


def assert_holds(checkpoint: Checkpoint, specs: list[Spec]) -> None:
    """Compare bit for bit with what was written."""
    expected = expected_weights(specs)
    assert set(checkpoint.weights) == set(expected)
    assert set(checkpoint.mapped.values()) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(checkpoint.weights[name], values), name


def chain_config(specs: list[Spec], form: str, name: str = "v1") -> dict[str, Any]:
    """Return the configuration of a model in which each layer is called on the one before it.

    `form` is "keras2" or "keras3" (a functional model, its layers listed in reverse) or "sequential".
    """
    layers: list[dict[str, Any]] = []
    for before, spec in zip([None, *specs], specs, strict=False):
        layer: dict[str, Any] = {"class_name": spec.class_name, "config": {**spec.config, "name": spec.name}}
        if form != "sequential":
            layer["name"] = spec.name
            layer["inbound_nodes"] = [] if before is None else [_node(before.name, form)]
        layers.append(layer)
    if form == "sequential":
        return {"class_name": "Sequential", "config": {"name": name, "layers": layers}}
    ends = {"input_layers": [[specs[0].name, 0, 0]], "output_layers": [[specs[-1].name, 0, 0]]}
    if form == "keras3":
        ends = {key: value[0] for key, value in ends.items()}  # as Keras 3 writes a single one
    return {"class_name": "Functional", "config": {"name": name, "layers": layers[::-1], **ends}}


def _node(name: str, form: str) -> Any:
    if form == "keras2":
        return [[name, 0, 0, {}]]
    history = {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": [name, 0, 0]}}
    return {"args": [history], "kwargs": {"mask": None}}


def write_legacy(
    path: Path, specs: list[Spec], config: dict[str, Any] | str | None, libver: Any = ("v108", "v110")
) -> Path:
    """Write what Keras 2's model.save (or, without a config, save_weights) writes; `libver` is HDF5's."""
    with h5py.File(path, "w", libver=libver) as file:
        if config is not None:
            file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
            file.attrs["keras_version"], file.attrs["backend"] = "2.8.0", "tensorflow"
        root = file if config is None else file.create_group("model_weights")
        root.attrs["layer_names"] = [spec.name.encode() for spec in specs]
        for spec in specs:
            group = root.create_group(spec.name)
            group.attrs["weight_names"] = [f"{spec.name}/{role}:0".encode() for role in spec.arrays]
            for role, values in spec.arrays.items():
                group[f"{spec.name}/{role}:0"] = values
    return path


def write_numbered(file: Any, specs: list[Spec], has_names: bool = True, libver: Any = ("v108", "v110")) -> None:
    """Write what Keras 3's save_weights writes; before it stored layers' names (`has_names`), numbers were all."""
    with h5py.File(file, "w", libver=libver) as target:
        counts: Counter[str] = Counter()
        for spec in specs:
            if spec.class_name == "InputLayer":
                continue
            base = GROUPS[spec.class_name]
            group = target.create_group(f"layers/{base}{f'_{counts[base]}' if counts[base] else ''}/vars")
            counts[base] += 1
            if has_names:
                group.attrs["name"] = spec.name
            for index, values in enumerate(spec.arrays.values()):
                group[str(index)] = values


def write_archive(path: Path, specs: list[Spec], config: dict[str, Any] | str, has_names: bool = True) -> Path:
    """Write a `.keras` file."""
    image = io.BytesIO()
    write_numbered(image, specs, has_names)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-11-20@15:27:15"}))
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", image.getvalue())
    return path
