"""Files that hold nothing but weights: what Keras Applications calls the layers of its MobileNets.

Source: the layers' names in keras.applications.mobilenet and mobilenet_v2, of Keras 3 and of keras-applications 1.0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.guarded_hdf5 import GuardedFile
from minimobile.formats.keras.keras_arrays import fetch_arrays, find_named, find_numbered, is_numbered
from minimobile.formats.keras.keras_layers import to_pytorch
from minimobile.networks import mobilenet_v1, mobilenet_v2

_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


_KERNELS = {"conv2d": "kernel", "depthwise_conv2d": "depthwise_kernel", "dense": "kernel"}
_PADDING_LAYERS = (4, 5)  # of either network: one per depthwise layer of stride 2; before the first layer until 2020


class Row(NamedTuple):
    """One layer of Applications: its name, its class as groups are named, and the start of our names for its arrays."""

    name: str
    base: str
    canonical: str


def read_applications(file: GuardedFile) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the weights by canonical name, and {dataset: canonical name}.

    Raises FormatError for a file whose layers are not those of Applications' MobileNet or MobileNetV2.
    """
    groups = _group_by_layer(file)
    rows = _list_v2() if "Conv1" in groups else _list_v1()
    strange = [name for name in groups if name not in {row.name for row in rows}]
    missing = [row.name for row in rows[:-1] if row.name not in groups]
    if strange or missing:
        found = f"no layer {missing[0]!r}" if missing else f"the layer {strange[0][:80]!r}"
        raise FormatError(
            f"{file.where}: expected the layers of MobileNet or MobileNetV2 of Keras Applications in a file without a "
            f"model's configuration, found {found}; save the whole model in Keras: model.save('model.keras')"
        )
    weights: dict[str, NDArray[Any]] = {}
    mapped: dict[str, str] = {}
    for row in rows:
        if row.name not in groups:
            continue  # without the classifier
        if row.base == "batch_normalization":
            names = _BATCH_NORM
        else:
            names = {_KERNELS[row.base]: "weight", **({"bias": "bias"} if row.canonical == "classifier" else {})}
        arrays, datasets = fetch_arrays(file, {(row.name,): groups[row.name]}, (row.name,), list(names))
        for role, values in arrays.items():
            name = f"{row.canonical}.{names[role]}"
            if names[role] == "weight" and row.base in _KERNELS:
                weight = to_pytorch(values, row.base, f"{file.where}: layer {row.name!r}")
                shape = weight.shape[:2] if row.canonical == "classifier" else weight.shape
                weights[name] = np.ascontiguousarray(weight.reshape(shape))
            else:
                weights[name] = values
            mapped[datasets[role]] = name
    return weights, mapped


def _group_by_layer(file: GuardedFile) -> dict[str, dict[str, str]]:
    """Return {layer's name: {name or number of an array: dataset}}; "Logits", an older name, is "predictions"."""
    known = {row.name for row in (*_list_v1(), *_list_v2())} | {"Logits"}
    groups: dict[str, dict[str, str]] = {}
    if is_numbered(file):
        layers = find_numbered(file).get("", [])
        if any(group.layer_name is None for group in layers):
            return _name_by_order(file)
        groups = {str(group.layer_name): group.arrays for group in layers}
    else:
        for (outer, inner), arrays in find_named(file, "").items():
            groups.setdefault(inner if inner in known and outer not in known else outer, {}).update(arrays)
    return {"predictions" if name == "Logits" else name: arrays for name, arrays in groups.items()}


def _name_by_order(file: GuardedFile) -> dict[str, dict[str, str]]:
    """Name the groups of a file that tells no names: the n-th of a class is the n-th of that class in the network.

    Only where there are as many of each class as in the network of Applications, its padding layers included.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for group in find_numbered(file).get("", []):
        groups.setdefault(group.base, []).append(group.arrays)
    paddings = sum(path.startswith("layers/zero_padding2d") and path.count("/") == 1 for path in file.attributes)
    for rows in (_list_v1(), _list_v2()):
        for known in (rows, rows[:-1]):
            names: dict[str, list[str]] = {}
            for row in known:
                names.setdefault(row.base, []).append(row.name)
            counts = {base: len(own) for base, own in names.items()}
            if counts == {base: len(own) for base, own in groups.items()} and paddings in _PADDING_LAYERS:
                return {
                    name: arrays for base, own in names.items() for name, arrays in zip(own, groups[base], strict=True)
                }
    return {base: {} for base in groups}  # names of no layer, to be refused


def _list_v1() -> list[Row]:
    """Return V1's layers in the network's order, the classifier last."""
    rows = _list_layer("conv1", "conv1_bn", "conv2d", "mobilenet_v1.conv_stem")
    for index in range(len(mobilenet_v1.SEPARABLE_LAYERS)):
        for kind, base, layer in (("dw", "depthwise_conv2d", 2 * index), ("pw", "conv2d", 2 * index + 1)):
            name = f"conv_{kind}_{index + 1}"
            rows += _list_layer(name, f"{name}_bn", base, f"mobilenet_v1.layer.{layer}")
    return [*rows, Row("conv_preds", "conv2d", "classifier")]


def _list_v2() -> list[Row]:
    """Return V2's layers in the network's order, the classifier last."""
    expand = ("expand", "conv2d", "expand_1x1")
    rest = (("depthwise", "depthwise_conv2d", "conv_3x3"), ("project", "conv2d", "reduce_1x1"))
    count = sum(repetitions for _, repetitions, _ in mobilenet_v2.STAGES)
    blocks = [(f"block_{index + 1}", f"layer.{index}", (expand, *rest)) for index in range(count)]
    rows = _list_layer("Conv1", "bn_Conv1", "conv2d", "mobilenet_v2.conv_stem.first_conv")
    for block, layer, parts in (("expanded_conv", "conv_stem", rest), *blocks):
        for part, base, ours in parts:
            name = f"{block}_{part}"
            rows += _list_layer(name, f"{name}_BN", base, f"mobilenet_v2.{layer}.{ours}")
    rows += _list_layer("Conv_1", "Conv_1_bn", "conv2d", "mobilenet_v2.conv_1x1")
    return [*rows, Row("predictions", "dense", "classifier")]


def _list_layer(name: str, norm: str, base: str, canonical: str) -> list[Row]:
    return [Row(name, base, f"{canonical}.convolution"), Row(norm, "batch_normalization", f"{canonical}.normalization")]
