"""Where a Keras model's arrays are in its HDF5 file: by the layers' names, in either of the two layouts.

Keras 2 and the legacy files of Keras 3 name them: one group per layer of the outermost model, under `model_weights` or,
with weights alone, under the root (`conv1/conv1/kernel:0`). Keras 3, and `.keras` files of Keras 2.12 and later, number
the layers of each class (`layers/conv2d_7/vars/0`); recent ones give the layer's name as an attribute of `vars`. Keras
2.12 counts every layer twice and, on Windows, writes backslashes (`_layer_checkpoint_dependencies\\conv2d_14/vars/0`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.guarded_hdf5 import GuardedFile
from minimobile.formats.keras.keras_config import KerasLayer

Path = tuple[str, ...]
Located = dict[Path, dict[str, str]]
"""Path of a layer through the models around it -> {name or number of an array: dataset}."""

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
OPTIMIZERS = ("optimizer", "optimizer_weights")
_ALIASES = {"depthwise_kernel": ("depthwise_kernel", "kernel")}  # Keras 3 dropped the prefix


class Group(NamedTuple):
    """One numbered group: its class in snake case, its number, its path, and the layer's name where it tells."""

    base: str
    number: int
    path: str
    layer_name: str | None
    arrays: dict[str, str]


def is_numbered(file: GuardedFile) -> bool:
    """Say whether the file has Keras 3's layout."""
    return any(_split(path)[0] in CONTAINERS for path in file.attributes)


def locate_arrays(file: GuardedFile, model: KerasLayer) -> Located:
    """Return where the arrays of all layers of a model are."""
    return _locate_numbered(file, model) if is_numbered(file) else _locate_named(file, model)


def fetch_arrays(
    file: GuardedFile, located: Mapping[Path, Mapping[str, str]], path: Path, roles: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read one layer's arrays as float32; `roles` are Keras' names of them, in its order. Also return their datasets.

    Raises FormatError where one is missing, or is no float.
    """
    there = located.get(path, {})
    where = f"{file.where}: layer {'/'.join(path)!r}"
    keys = {role: (str(index), *_ALIASES.get(role, (role,))) for index, role in enumerate(roles)}
    found = {role: [there[key] for key in keys[role] if key in there] for role in roles}
    if len(there) != len(roles) or not all(found.values()):
        raise FormatError(
            f"{where}: expected the arrays {', '.join(roles)}, as the model's config says, found "
            f"{', '.join(list(there)[:10]) or 'none'}"
        )
    datasets = {role: names[0] for role, names in found.items()}
    for role, name in datasets.items():
        if file.dtypes[name].kind != "f" and role != "count":
            raise FormatError(f"{where}: {name}: expected floating-point numbers, found {file.dtypes[name]}")
    with np.errstate(over="ignore"):
        return {role: file.read(name).astype(np.float32) for role, name in datasets.items()}, datasets


def explain_unused(file: GuardedFile, mapped: Mapping[str, str], fetched: set[str]) -> dict[str, str]:
    """Return why each array of the file that is not `mapped` has no place among the weights."""
    reasons = {}
    for name in file.shapes:
        if name.partition("/")[0] in OPTIMIZERS:
            reasons[name] = "the optimiser's, for training only"
        elif name not in mapped:
            is_scaling = name in fetched
            reasons[name] = "scales the picture, which the processor does" if is_scaling else "used in training only"
    return reasons


def find_named(file: GuardedFile, root: str) -> Located:
    """Return the arrays of the layout of names: (outermost group, innermost group) -> {role: dataset}."""
    found: Located = {}
    for dataset in file.shapes:
        if dataset.startswith(root) and dataset.partition("/")[0] not in OPTIMIZERS:
            groups = dataset.removeprefix(root).split("/")
            role = groups[-1].partition(":")[0]
            arrays = found.setdefault((groups[0], groups[-2] if len(groups) > 1 else ""), {})
            if role in arrays:
                raise FormatError(f"{file.where}: expected one array of a name in a layer, found {dataset!r}, too")
            arrays[role] = dataset
    return found


def _locate_named(file: GuardedFile, model: KerasLayer) -> Located:
    """Match by name: a layer of the outermost model has a group, a layer of a model in it has one inside that one's."""
    found = find_named(file, "model_weights/")
    whole: dict[str, list[dict[str, str]]] = {}
    for (outer, _), arrays in found.items():
        whole.setdefault(outer, []).append(arrays)
    located: Located = {}
    for path in _walk_paths(model, ()):
        if len(path) > 1:
            own = [found[path[0], path[-1]]] if (path[0], path[-1]) in found else []
        else:
            own = whole.get(path[0], [])
        if len(own) > 1:
            raise FormatError(f"{file.where}: layer {path[0]!r}: expected one group of arrays, found {len(own)}")
        if own:
            located[path] = own[0]
    return located


def _walk_paths(model: KerasLayer, path: Path) -> Iterator[Path]:
    for layer in model.children:
        if layer.is_model:
            yield from _walk_paths(layer, (*path, layer.name))
        else:
            yield (*path, layer.name)


def find_numbered(file: GuardedFile) -> dict[str, list[Group]]:
    """Return {path of a model's group: the groups of its layers that hold arrays or are models, in their order}.

    The outermost model's path is "".
    """
    arrays: dict[str, dict[str, str]] = {}
    for dataset in file.shapes:
        *parts, name = _split(dataset)
        arrays.setdefault("/".join(parts), {})[name] = dataset
    attributes = {"/".join(_split(path)): values for path, values in file.attributes.items()}
    layers = [(path, parts) for path in attributes if (parts := path.split("/"))[-2:-1] and parts[-2] in CONTAINERS]
    models = {"/".join(parts[:-2]) for _, parts in layers}
    found: dict[str, list[Group]] = {}
    for path, parts in layers:
        own = arrays.get(f"{path}/vars", {})
        match = re.fullmatch(r"(.+?)(?:_([0-9]{1,6}))?", parts[-1])
        if match and (own or path in models):
            told = attributes.get(f"{path}/vars", {}).get("name")
            group = Group(match[1], int(match[2] or 0), path, told if isinstance(told, str) else None, own)
            found.setdefault("/".join(parts[:-2]), []).append(group)
    return {model: sorted(groups, key=lambda group: (group.base, group.number)) for model, groups in found.items()}


def _split(path: str) -> list[str]:
    return path.replace("\\", "/").split("/")


def _locate_numbered(file: GuardedFile, model: KerasLayer) -> Located:
    """Match the groups of each class with its layers: by the name that they tell, else by their order in the config."""
    found = find_numbered(file)
    located: Located = {}
    waiting: list[tuple[KerasLayer, str, Path]] = [(model, "", ())]
    while waiting:
        outer, root, path = waiting.pop()
        groups: dict[str, list[Group]] = {}
        for group in found.get(root, []):
            groups.setdefault(group.base, []).append(group)
        layers: dict[str, list[KerasLayer]] = {}
        for layer in outer.children:
            layers.setdefault(_snake_case(layer), []).append(layer)
        for base, own in groups.items():
            for layer, group in _pair(layers.get(base, []), own, file.where):
                own_path = (*path, layer.name)
                if layer.is_model:
                    waiting.append((layer, group.path, own_path))
                else:
                    located[own_path] = group.arrays
    return located


def _pair(layers: list[KerasLayer], groups: list[Group], where: str) -> list[tuple[KerasLayer, Group]]:
    names = {group.layer_name: group for group in groups}
    if None not in names and len(names) == len(groups):
        return [(layer, names[layer.name]) for layer in layers if layer.name in names]
    if len(layers) != len(groups):
        raise FormatError(
            f"{where}: expected arrays of {len(layers)} layers {groups[0].base!r}, as the config has, "
            f"found {len(groups)}"
        )
    return list(zip(layers, groups, strict=True))


def _snake_case(layer: KerasLayer) -> str:
    """Return the class as Keras names groups: Conv2D -> conv2d, DepthwiseConv2D -> depthwise_conv2d."""
    is_functional = layer.is_model and layer.class_name != "Sequential"
    name = re.sub(r"\W+", "", "Functional" if is_functional else layer.class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
