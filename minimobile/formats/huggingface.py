"""Hugging Face's layout: a directory with config.json, weights (safetensors or PyTorch, sharded or not), processor.

A single weights file is read with the config.json that lies beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import ConfigError, FormatError, MinimobileError, MissingError
from minimobile.formats import safetensors_file
from minimobile.formats.checkpoint import ARCHITECTURES, HEADS, Checkpoint, name_class
from minimobile.formats.description import Description, Entry
from minimobile.networks.config import Config, MobileNetV1Config, MobileNetV2Config, config_from_dict
from minimobile.storage.directories import write_directory
from minimobile.storage.files import path_beside, user_path, write_whole_bytes
from minimobile.storage.hub import CONFIG, PROCESSOR, WEIGHTS
from minimobile.storage.strict_json import read_json_object

_SHARD_LIMIT = 1000
_FACTS = ("model_type", "architectures", "num_labels", "image_size")  # of a config.json of whatever model

Weights = dict[str, NDArray[Any]]


def read(path: str | Path, config: Config | None = None) -> Checkpoint:
    """Read a directory, or one weights file with the config.json beside it; `config` stands in for config.json.

    Raises FormatError or ConfigError where a file is missing, damaged, hostile or of another kind of model.
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    config_file = directory / CONFIG
    if config is None and not config_file.exists():
        raise MissingError(
            f"{directory}: expected {CONFIG} there, found none; add that file, pass config=, or name the weights file "
            "itself, whose arrays tell most of it"
        )
    values: Mapping[str, Any] = read_json_object(config_file) if config is None else config.to_dict()
    if config is None:
        try:
            config = config_from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{config_file}: {error}") from None
    source = path if path.is_file() else find_weights(directory)
    kept, ignored = part_counters(read_weights(source, with_counters=True))
    weights = canonical_weights(kept, config.model_type, str(source))
    processor = read_json_object(directory / PROCESSOR) if os.path.lexists(directory / PROCESSOR) else None
    architecture = choose_architecture(values.get("architectures"), config.model_type, weights)
    provenance = {"format": "huggingface", "source": path.name, "weights": source.name}
    return Checkpoint(
        config, weights, architecture, processor, provenance,
        mapped=dict(zip(kept, weights, strict=True)),
        ignored=ignored,
    )  # fmt: skip


def describe(path: str | Path) -> Description:
    """Say what a directory, or a single weights file, holds; the part that is damaged is left out, and named."""
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    values: Mapping[str, Any] = {}
    entries: tuple[Entry, ...] = ()
    problems = []
    try:
        values = read_json_object(directory / CONFIG) if (directory / CONFIG).exists() else {}
    except MinimobileError as error:
        problems.append(str(error))
    try:
        source = path if path.is_file() else find_weights(directory)
        entries = tuple(list_entries(source))
    except MinimobileError as error:
        problems.append(str(error))
    is_ours = values.get("model_type") in (MobileNetV1Config.model_type, MobileNetV2Config.model_type)
    version = values.get("transformers_version")
    return Description(
        format="Hugging Face directory" if path.is_dir() else _name_weights_file(path),
        dialect="huggingface" if is_ours else None,
        producer=f"transformers {version}" if isinstance(version, str) else None,
        entries=entries,
        facts={name: _show_fact(values[name]) for name in _FACTS if name in values},
        problem="; ".join(problems) or None,
    )


def write(directory: str | Path, checkpoint: Checkpoint, *, overwrite: bool = True) -> None:
    """Write config.json, model.safetensors and, where known, preprocessor_config.json: all of them or none.

    Other files of an existing directory stay; without `overwrite` it must have none, at the end, too (InputError).
    Raises FormatError for a network that rounds as in its training, which this layout cannot tell.
    """
    if checkpoint.ranges:
        raise FormatError(
            f"{directory}: expected a network as transformers computes it, got one that rounds as in training for "
            'quantisation; save it with model.save("NAME.h5"), or let minimobile convert leave the rounding out'
        )
    values = checkpoint.config.to_dict() | {"architectures": [checkpoint.architecture]}
    texts: dict[str, Mapping[str, Any]] = {CONFIG: values}
    if checkpoint.processor is not None:
        texts[PROCESSOR] = checkpoint.processor
    others = (WEIGHTS[0], PROCESSOR)
    with write_directory(user_path(directory, "directory"), CONFIG, others, overwrite=overwrite) as staging:
        for name, content in texts.items():
            text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
            write_whole_bytes(staging / name, text.encode("utf-8"))
        safetensors_file.write_tensors(staging / WEIGHTS[0], name_weights(checkpoint))


def read_weights(path: Path, with_counters: bool = False) -> Weights:
    """Read one weights file, or all the shards that an index lists, with or without the counters of training batches.

    Floats are those of `safetensors_file.read_tensors`.
    """
    if path.name.endswith(".index.json"):
        return _read_shards(path, with_counters)
    if safetensors_file.recognise(path) or path.suffix == ".safetensors":
        return safetensors_file.read_tensors(path, with_counters)
    weights: Weights = _pytorch().read_tensors(path, with_counters)
    return weights


def part_counters(stored: Weights) -> tuple[Weights, dict[str, str]]:
    """Return (the arrays without counters of training batches that stand at 0, {those counters: why})."""
    idle = {name for name, values in stored.items() if safetensors_file.is_counter(name) and not values.any()}
    kept = {name: values for name, values in stored.items() if name not in idle}
    return kept, dict.fromkeys(sorted(idle), "a counter of training batches that stands at 0")


def canonical_weights(weights: Mapping[str, NDArray[Any]], model_type: str, where: str) -> Weights:
    """Give the backbone's weights the prefix that the bare models' files lack (`mobilenet_v1.conv_stem...`)."""
    prefix = f"{model_type}."
    named: Weights = {}
    for name, values in weights.items():
        canonical = name if name.startswith((prefix, *HEADS)) else prefix + name
        if canonical in named:
            raise FormatError(f"{where}: expected every weight once, found {canonical} with and without its prefix")
        named[canonical] = values
    return named


def choose_architecture(named: object, model_type: str, keys: Iterable[str]) -> str:
    """Return the architecture that a config's `architectures` names, else the one that the weights' names fit."""
    stem = "MobileNetV1" if model_type == "mobilenet_v1" else "MobileNetV2"
    if isinstance(named, list | tuple) and len(named) == 1 and named[0] in ARCHITECTURES and named[0].startswith(stem):
        return str(named[0])
    return name_class(stem, keys)


def name_weights(checkpoint: Checkpoint) -> Weights:
    """Return the weights under the names of transformers' class, with the counters that its batch norms expect."""
    prefix = f"{checkpoint.config.model_type}."
    is_bare = checkpoint.architecture.endswith("Model")
    weights: Weights = {}
    for name, values in checkpoint.weights.items():
        name = name.removeprefix(prefix) if is_bare else name  # noqa: PLW2901
        weights[name] = values
        if name.endswith(".running_mean"):
            weights.setdefault(name.removesuffix("running_mean") + safetensors_file.COUNTER, np.zeros((), np.int64))
    return weights


def list_entries(source: Path) -> Iterator[Entry]:
    """Yield the arrays of a weights file, or of all the shards that an index lists, from the headers alone."""
    if source.name.endswith(".index.json"):
        for shard in _list_shards(source)[1]:
            yield from list_entries(shard)
    elif safetensors_file.recognise(source) or source.suffix == ".safetensors":
        names = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64"}
        for name, entry in safetensors_file.read_header(source).items():
            yield Entry(name, entry.shape, names[entry.dtype])
    else:
        for name, tensor in _pytorch().list_tensors(source).items():
            yield Entry(name, tensor.shape, tensor.storage.dtype_name)


def _name_weights_file(path: Path) -> str:
    return "safetensors file" if safetensors_file.recognise(path) else "PyTorch weights file"


def _show_fact(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:200]


def find_weights(directory: Path) -> Path:
    """Return the weights file, or the index of several, that a directory has."""
    for name in WEIGHTS:
        if os.path.lexists(directory / name):  # one that leads nowhere is named, and no other taken in its place
            return directory / name
    raise MissingError(f"{directory}: expected one of {', '.join(WEIGHTS)}, found none")


def _read_shards(index: Path, with_counters: bool) -> Weights:
    places, shards = _list_shards(index)
    weights: Weights = {}
    for path in shards:
        found = _shard_format(index)[0](path, with_counters)
        expected = {name for name, place in places.items() if place == path.name}
        strays = sorted(name for name in expected.symmetric_difference(found) if not safetensors_file.is_counter(name))
        if strays:
            raise FormatError(
                f"{path}: expected the {len(expected)} weights that {index.name} places there, found a difference in "
                f"{', '.join(strays)}"
            )
        weights.update(found)
    return weights


def _list_shards(index: Path) -> tuple[dict[str, str], list[Path]]:
    """Return {weight: name of its file} and the paths of all files, once each of them is known to be there."""
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FormatError(f"{index}: expected weight_map to map weights to files, found {str(places)[:80]}")
    ending = _shard_format(index)[1]
    for name in places.values():
        if not isinstance(name, str) or not name.endswith(ending) or any(mark in name for mark in '/\\:\0"'):
            raise FormatError(
                f"{index}: expected the plain name of a {ending} file beside it, found {str(name)[:200]!r}"
            )
    shards = [path_beside(index.parent, name, f"{index}: weight_map") for name in sorted(set(places.values()))]
    if len(shards) > _SHARD_LIMIT:
        raise FormatError(f"{index}: expected at most {_SHARD_LIMIT} files, found {len(shards)}")
    for shard in shards:
        if not shard.exists():
            raise MissingError(f"{shard}: no such file, although {index.name} lists it; get it, too")
    return places, shards


def _shard_format(index: Path) -> tuple[Callable[[Path, bool], Weights], str]:
    if index.name.endswith(".safetensors.index.json"):
        return safetensors_file.read_tensors, ".safetensors"
    return _pytorch().read_tensors, ".bin"


def _pytorch() -> ModuleType:
    """Return what reads PyTorch's files, which most directories have none of."""
    from minimobile.formats.pytorch import pytorch

    return pytorch
