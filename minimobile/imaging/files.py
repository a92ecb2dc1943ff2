"""Where an image processor's settings are kept: `preprocessor_config.json`, found, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimobile import formats
from minimobile.demo.sources import open_source
from minimobile.errors import FormatError, InputError, MissingError
from minimobile.formats.signatures import is_torch_weights
from minimobile.formats.tensorflow.checkpoint_files import is_checkpoint
from minimobile.storage import hub
from minimobile.storage.directories import make_directory, refuse_begun
from minimobile.storage.files import user_path, write_whole_bytes
from minimobile.storage.strict_json import read_json_object

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def read_processor(source: str | Path | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    """Read the settings of an image processor; return them, the file, and what else was given.

    Args:
        source: a directory or hub id with `preprocessor_config.json` (or the newer `processor_config.json`), such a
            file, or a checkpoint that holds the settings itself, as the native HDF5 file does, or an embedded model.
        given: the arguments beside it, of which those are used that concern the hub.

    Raises:
        FormatError: there is none, or it is not a JSON object.
    """
    source, given = hub.part_source(source, given)
    options, others = hub.part_hub_options(given)
    if isinstance(source, str) and source.startswith("demo:"):
        with open_source(source) as embedded:
            return _read_from_checkpoint(Path(embedded)), Path(embedded), others
    path = _locate(source, PROCESSOR_FILES, options)
    if path.suffix.lower() != ".json":
        return _read_from_checkpoint(path), path, others
    values = read_json_object(path)
    nested = values.get("image_processor")
    return (nested if isinstance(nested, dict) else values), path, others


def _read_from_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = formats.read(path)
    if checkpoint.processor is None:
        raise FormatError(f"{path}: holds no image-processor settings; build the processor by its class instead")
    named = type(checkpoint.config).__name__.replace("Config", "ImageProcessor")
    return {"image_processor_type": named, **checkpoint.processor}


def read_model_type(path: Path) -> str | None:
    """Read `model_type` from the `config.json` beside a file, where there is one."""
    config = path.with_name("config.json")
    model_type = read_json_object(config).get("model_type") if config.is_file() else None
    return model_type if isinstance(model_type, str) else None


def write_processor(directory: str | Path, values: Mapping[str, Any]) -> Path:
    """Write `preprocessor_config.json`, whole or not at all; the directory is made where it is missing."""
    if not isinstance(directory, (str, Path)):
        raise InputError(f"save_pretrained: expected a directory, got {type(directory).__name__}")
    path = make_directory(user_path(directory)) / PROCESSOR_FILES[0]
    write_whole_bytes(path, format_settings(values).encode())
    return path


def format_settings(values: Mapping[str, Any]) -> str:
    """Return settings as the text of their file."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _locate(source: str | Path, names: Sequence[str], options: hub.HubOptions) -> Path:
    """Find the first of the named files in a directory or a hub repository; a file is itself."""
    if not isinstance(source, (str, Path)):
        raise FormatError(f"image processor: expected a directory or a file, got {type(source).__name__}")
    path = user_path(source)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            path = path / options.subfolder
            refuse_begun(path, hub.CONFIG)
        is_directory = path.is_dir()
    except (OSError, ValueError) as error:
        raise MissingError(f"{source!r}: the path cannot be read ({error})") from error
    for name in names:
        if is_directory and (path / name).is_file():
            return path / name
    if is_checkpoint(path) or (is_directory and is_torch_weights(path)):
        return path  # whose school says what transformers has a file for
    if is_directory:
        raise MissingError(f"{path}: expected a directory with {names[0]}; build the processor by its class instead")
    return hub.locate(source, names, options)
