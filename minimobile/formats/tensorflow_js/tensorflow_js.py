"""TensorFlow.js models: `model.json` and its shards, a graph of TensorFlow's or the layers of a Keras model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import find_dialect
from minimobile.formats.keras.keras_config import KerasLayer, count_classes, parse_model
from minimobile.formats.keras.keras_graph import flatten
from minimobile.formats.keras.keras_layers import Arrays, translate_model
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.other_networks import naming_others
from minimobile.formats.signatures import TENSORFLOW_JS
from minimobile.formats.tensorflow.tensorflow_graph import describe_graph, read_network
from minimobile.formats.tensorflow_js.json_graph import read_json_graph
from minimobile.formats.tensorflow_js.weights_manifest import read_manifest, read_weights
from minimobile.networks.config import Config
from minimobile.storage.strict_json import read_json_object

_DIALECT = "keras"


def read(path: Path, config: Config | None = None) -> Checkpoint:
    """Read a MobileNet from a graph model or a layers model; `config` replaces the one that is found.

    Quantised shards give the float32 that they stand for. Raises FormatError for files that are damaged or hostile,
    shards outside the model's folder, and networks that are no MobileNet.
    """
    file, values, topology = _open(path)
    weights = read_weights(values.get("weightsManifest"), file.parent, str(file))
    provenance = {"format": "tensorflow-js", **_name_producer(values)}
    if _is_graph(topology):
        graph = read_json_graph(topology, weights, str(file))
        return read_network(graph, sum(array.nbytes for array in weights.values()), file, provenance, config)
    return _read_layers(_parse_layers(topology, file), weights, file, provenance, config)


def describe(path: Path) -> Description:
    """Return what the files hold: the weights of the manifest, and how many there are of each operation or layer."""
    file, values, topology = _open(path)
    producer = _name_producer(values).get("producer")
    if _is_graph(topology):
        weights = read_weights(values.get("weightsManifest"), file.parent, str(file))
        graph = read_json_graph(topology, weights, str(file))
        size = sum(array.nbytes for array in weights.values())
        return describe_graph(graph, size, file, "TensorFlow.js graph model", producer)
    groups = read_manifest(values.get("weightsManifest"), file.parent, str(file))
    entries = tuple(Entry(spec.name, spec.shape, spec.dtype) for specs, _ in groups for spec in specs)
    facts = {"layers": count_classes(_parse_layers(topology, file))}
    return Description("TensorFlow.js layers model", _DIALECT, producer, entries, facts)


def _open(path: Path) -> tuple[Path, dict[str, Any], Mapping[str, Any]]:
    """Return `model.json`, what is in it, and its topology."""
    file = path / TENSORFLOW_JS if path.is_dir() else path
    values = read_json_object(file)
    topology = values.get("modelTopology")
    if not isinstance(topology, Mapping):
        raise FormatError(f"{file}: expected a model with its modelTopology, found weights alone")
    return file, values, topology


def _is_graph(topology: Mapping[str, Any]) -> bool:
    return "node" in topology


def _name_producer(values: Mapping[str, Any]) -> dict[str, str]:
    names = [values[key] for key in ("generatedBy", "convertedBy") if isinstance(values.get(key), str)]
    return {"producer": ", ".join(name[:80] for name in names)} if names else {}


def _parse_layers(topology: Mapping[str, Any], file: Path) -> KerasLayer:
    entry = topology.get("model_config", topology)
    where = f"{file}: modelTopology"
    if not isinstance(entry, Mapping) or "class_name" not in entry:
        raise FormatError(f"{where}: expected a graph of nodes or a Keras model, found neither")
    return parse_model(entry, where)


def _read_layers(
    model: KerasLayer, weights: Mapping[str, NDArray[Any]], file: Path, provenance: Mapping[str, str],
    config: Config | None,
) -> Checkpoint:  # fmt: skip
    where = str(file)
    named: dict[tuple[str, str], list[str]] = {}
    for name in weights:
        *_, layer, role = ("", *name.split("/"))
        named.setdefault((layer, role), []).append(name)

    def fetch(layer: tuple[str, ...], roles: Sequence[str]) -> tuple[Arrays, Mapping[str, str]]:
        names = {}
        for role in roles:
            plain = (role, "kernel") if role == "depthwise_kernel" else (role,)
            found = [name for key in plain for name in named.get((layer[-1], key), [])]
            if len(found) != 1 or weights[found[0]].dtype.kind != "f":
                raise FormatError(
                    f"{where}: layer {layer[-1][:80]!r}: expected one weight {role} of floating-point numbers, found "
                    f"{len(found)} of that name"
                )
            names[role] = found[0]
        return {role: weights[name].astype(np.float32) for role, name in names.items()}, names

    with naming_others([*weights, count_classes(model)]):
        flat = flatten(model, where)
        height, width, _ = flat.input_shape or (None, None, None)
        size = (height, width) if height is not None and width is not None else None
        checkpoint = match_network(
            translate_model(flat, fetch, where), find_dialect(_DIALECT), where,
            image_size=size, provenance={**provenance, "source": file.name}, config=config,
        )  # fmt: skip
    unused = {name: "not a part of the network" for name in weights if name not in checkpoint.mapped}
    return dataclasses.replace(checkpoint, ignored={**unused, **checkpoint.ignored})
