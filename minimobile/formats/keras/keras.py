"""Keras files: `.keras` archives, legacy `.h5` models and weights, and Keras 3's `.weights.h5`.

A model's configuration is read as data, and its graph is matched with a MobileNet's; no class or function that it names
is ever looked up. Source: keras.src.saving.saving_lib and keras.src.legacy.saving.legacy_h5_format of Keras 3.15.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.deduction import build_checkpoint
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import find_dialect
from minimobile.formats.guarded_hdf5 import GuardedFile, read_hdf5
from minimobile.formats.keras.keras_arrays import (
    explain_unused,
    fetch_arrays,
    is_numbered,
    locate_arrays,
)
from minimobile.formats.keras.keras_config import KerasLayer, count_classes, parse_model
from minimobile.formats.keras.keras_graph import flatten
from minimobile.formats.keras.keras_layers import Arrays, translate_model
from minimobile.formats.keras.keras_names import read_applications
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.other_networks import naming_others
from minimobile.formats.signatures import KERAS_MEMBERS, is_hdf5
from minimobile.formats.stored_zip import read_directory, read_member
from minimobile.networks.config import Config
from minimobile.storage.files import open_regular, regular_file_size
from minimobile.storage.strict_json import parse_json_object

CONFIG_LIMIT = 2**20  # bytes of JSON; a MobileNetV2's has 164 kB. Parsed, JSON takes up to 24 times its size
_DIALECT = "keras"


@dataclass(frozen=True)
class Contents:
    """An open Keras file: what kind it is, its arrays, its model's configuration if it has one, and who wrote it."""

    format: str
    arrays: GuardedFile
    model: KerasLayer | None = None
    producer: str | None = None
    dialect: str | None = _DIALECT


def read(path: str | Path, config: Config | None = None) -> Checkpoint:
    """Read a MobileNet that Keras wrote, an archive or an HDF5 file; `config` replaces what is deduced from the file.

    The graph comes from the model's configuration; a file of weights alone has to have the layers of Keras
    Applications. Raises FormatError for a damaged or hostile file, and for a network that is no MobileNet.
    """
    path = Path(path)
    return _read_contents(path, _open(path), config)


def read_open(path: Path, file: GuardedFile, config: Config | None = None) -> Checkpoint:
    """Do what `read` does with an HDF5 file that is open."""
    return _read_contents(path, _open_hdf5_contents(file), config)


def describe(path: str | Path) -> Description:
    """Return what a Keras file holds, also where it is no MobileNet: versions, layers by class, and arrays."""
    return _describe_contents(_open(Path(path), has_numbers=False))


def describe_open(file: GuardedFile) -> Description:
    """Do what `describe` does with an HDF5 file that is open."""
    return _describe_contents(_open_hdf5_contents(file))


def _read_contents(path: Path, contents: Contents, config: Config | None) -> Checkpoint:
    names = [*contents.arrays.attributes, *([] if contents.model is None else [count_classes(contents.model)])]
    with naming_others(names):
        return _read_network(path, contents, config)


def _read_network(path: Path, contents: Contents, config: Config | None) -> Checkpoint:
    provenance = {"format": "keras", "source": path.name}
    provenance |= {"producer": contents.producer} if contents.producer else {}
    file = contents.arrays
    fetched: set[str] = set()
    if contents.model is None:
        weights, mapped = read_applications(file)
        checkpoint = build_checkpoint(
            weights, find_dialect(_DIALECT), str(path), config=config, provenance=provenance, mapped=mapped
        )
    else:
        flat = flatten(contents.model, str(path))
        located = locate_arrays(file, contents.model)

        def fetch(layer: tuple[str, ...], roles: Sequence[str]) -> tuple[Arrays, Mapping[str, str]]:
            arrays, datasets = fetch_arrays(file, located, layer, roles)
            fetched.update(datasets.values())
            return arrays, datasets

        layers = translate_model(flat, fetch, str(path))
        height, width, _ = flat.input_shape or (None, None, None)
        size = (height, width) if height is not None and width is not None else None
        checkpoint = match_network(
            layers, find_dialect(_DIALECT), str(path), image_size=size, provenance=provenance, config=config
        )
    ignored = {**checkpoint.ignored, **explain_unused(file, checkpoint.mapped, fetched)}
    return dataclasses.replace(checkpoint, ignored=ignored)


def _describe_contents(contents: Contents) -> Description:
    file = contents.arrays
    entries = tuple(Entry(name, file.shapes[name], file.dtypes[name].name) for name in sorted(file.shapes))
    facts = {} if contents.model is None else {"layers": count_classes(contents.model)}
    return Description(contents.format, contents.dialect, contents.producer, entries, facts)


def _open(path: Path, has_numbers: bool = True) -> Contents:
    if is_hdf5(path):
        return _open_hdf5_contents(read_hdf5(path, has_numbers=has_numbers))
    where = str(path)
    with open_regular(path) as archive:
        members = read_directory(where, archive, regular_file_size(path))
        missing = [name for name in KERAS_MEMBERS if name not in members]
        if missing:
            raise FormatError(
                f"{where}: expected {', '.join(KERAS_MEMBERS)} in a Keras archive, found no {missing[0]}; save it again"
            )
        texts = {}
        for name in KERAS_MEMBERS[:2]:
            if members[name].size > CONFIG_LIMIT:
                raise FormatError(f"{where}: {name}: expected at most {CONFIG_LIMIT} bytes, found {members[name].size}")
            texts[name] = parse_json_object(read_member(where, archive, members[name]), f"{where}: {name}")
        image = read_member(where, archive, members["model.weights.h5"])
    producer = _name_producer(texts["metadata.json"])
    model = parse_model(texts["config.json"], f"{where}: config.json")
    file = read_hdf5(path / "model.weights.h5", image, has_numbers=has_numbers)
    return Contents("Keras archive", file, model, producer)


def _open_hdf5_contents(file: GuardedFile) -> Contents:
    root = file.attributes[""]
    text = root.get("model_config")
    if text is None:
        producer = _name_producer(root)
        if is_numbered(file):
            return Contents("Keras 3 weights", file, producer=producer)
        if producer or "layer_names" in root or {"conv1", "Conv1"} & file.attributes.keys():
            return Contents("Keras HDF5 weights", file, producer=producer)
        return Contents("HDF5 file of unknown origin", file, dialect=None)
    if not isinstance(text, str) or len(text) > CONFIG_LIMIT:
        raise FormatError(f"{file.where}: model_config: expected at most {CONFIG_LIMIT} bytes of JSON, found others")
    where = f"{file.where}: model_config"
    return Contents("Keras HDF5 model", file, parse_model(parse_json_object(text, where), where), _name_producer(root))


def _name_producer(values: Mapping[str, Any]) -> str | None:
    """Return "Keras 3.15.1 (tensorflow)" from `keras_version` and `backend`, as far as they are there."""
    version, backend = (values.get(name) for name in ("keras_version", "backend"))
    if not isinstance(version, str):
        return None
    return f"Keras {version[:40]}{f' ({backend[:40]})' if isinstance(backend, str) else ''}"
