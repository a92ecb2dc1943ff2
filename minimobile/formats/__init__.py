"""File formats: one module each with `recognise(path)`, `read(path)` and `describe(path)`, and the table of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import hdf5_kinds, huggingface
from minimobile.formats.boundary import with_one_error
from minimobile.formats.checkpoint import ARCHITECTURES, Checkpoint
from minimobile.formats.deduction import settle_quantized
from minimobile.formats.description import Description
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.formats.keras import keras
from minimobile.formats.onnx import onnx_file
from minimobile.formats.pytorch import torch_models
from minimobile.formats.tensorflow import saved_model, tensorflow_checkpoint, tensorflow_graph
from minimobile.formats.tensorflow_js import tensorflow_js
from minimobile.formats.tflite import tflite
from minimobile.formats.validation import check_weights
from minimobile.networks.config import Config
from minimobile.storage.files import read_start, regular_file_size, user_path
from minimobile.storage.hub import NO_OPTIONS, HubOptions, locate, locate_checkpoint

__all__ = [
    "ARCHITECTURES",
    "FORMATS",
    "Checkpoint",
    "Description",
    "Format",
    "check_weights",
    "describe",
    "examine",
    "locate",
    "read",
    "settle_quantized",
]


class Format(NamedTuple):
    """One row: what to call it, whether a path is one (by content), how to read it, how to say what is in it.

    The first row that recognises a path has it. `describe` may raise what `read` does; it tells whatever it can of a
    file that `read` refuses.
    """

    name: str
    recognise: Callable[[Path], bool]
    read: Callable[..., Checkpoint]
    describe: Callable[[Path], Description]


_ROWS = (
    Format("a TensorFlow SavedModel", saved_model.recognise, saved_model.read, saved_model.describe),
    Format(
        "a TensorFlow checkpoint",  # first, for its path need not be a file's
        tensorflow_checkpoint.recognise,
        tensorflow_checkpoint.read,
        tensorflow_checkpoint.describe,
    ),
    Format("TFLite (LiteRT)", tflite.recognise, tflite.read, tflite.describe),
    Format("HDF5 (the native file, or Keras')", hdf5_kinds.recognise, hdf5_kinds.read, hdf5_kinds.describe),
    Format("a Keras archive", keras.recognise, keras.read, keras.describe),
    Format(
        "safetensors or PyTorch weights (of transformers, torchvision or timm)",
        torch_models.recognise,
        torch_models.read,
        torch_models.describe,
    ),
    Format("a Hugging Face directory", huggingface.recognise, huggingface.read, huggingface.describe),
    Format("ONNX", onnx_file.recognise, onnx_file.read, onnx_file.describe),
    Format("a frozen TensorFlow graph", tensorflow_graph.recognise, tensorflow_graph.read, tensorflow_graph.describe),
    Format("a TensorFlow.js model", tensorflow_js.recognise, tensorflow_js.read, tensorflow_js.describe),
)
FORMATS = tuple(
    Format(row.name, with_one_error(row.recognise), with_one_error(row.read), with_one_error(row.describe))
    for row in _ROWS
)


def read(
    source: str | Path,
    *,
    config: Config | None = None,
    options: HubOptions = NO_OPTIONS,
) -> Checkpoint:
    """Read a checkpoint: a directory or file of any known format, or a hub id (`google/mobilenet_v2_1.0_224`).

    `config` replaces the file's own, `options` concern the hub. Raises FormatError for a file
    that is missing, damaged, hostile or unknown, ConfigError for a config that is none of ours, UnavailableError where
    the hub cannot be reached.
    """
    path = locate_checkpoint(source, options)
    entry = _find_format(path)
    checkpoint = entry.read(path) if config is None else entry.read(path, config=config)
    return _add_source(checkpoint, path, source, options)


def describe(source: str | Path, options: HubOptions = NO_OPTIONS) -> Description:
    """Say what a file of any known format is and holds, also where it cannot be loaded; the arguments are `read`'s.

    Raises FormatError for a file that is missing or of no known format, UnavailableError for a hub out of reach.
    """
    return examine(source, options)[0]


def examine(source: str | Path, options: HubOptions = NO_OPTIONS) -> tuple[Description, Checkpoint | None]:
    """Return what `describe` does, and what `read` does, or None where that fails: then `problem` says why."""
    path = locate_checkpoint(source, options)
    try:
        entry = next((entry for entry in FORMATS if entry.recognise(path)), None)
    except MinimobileError as error:  # begins as a known format does, and is too damaged to tell which
        return Description(_describe_content(path), problem=str(error)), None
    if entry is None:
        raise _unknown_format(path)
    try:
        description = entry.describe(path)
    except MinimobileError as error:
        description = Description(entry.name, problem=str(error))
    try:
        checkpoint = _add_source(entry.read(path), path, source, options)
    except MinimobileError as error:
        return dataclasses.replace(description, problem=str(error)), None
    return dataclasses.replace(description, problem=None), checkpoint


def _find_format(path: Path) -> Format:
    for entry in FORMATS:
        if entry.recognise(path):
            return entry
    raise _unknown_format(path)


def _unknown_format(path: Path) -> FormatError:
    known = "; ".join(entry.name for entry in FORMATS)
    return FormatError(f"{path}: expected one of the known formats ({known}), found {_describe_content(path)}")


def _add_source(checkpoint: Checkpoint, path: Path, source: str | Path, options: HubOptions) -> Checkpoint:
    """Note where a checkpoint was fetched from, if it was."""
    if path in (user_path(source), user_path(source) / options.subfolder):
        return checkpoint
    fetched = {"source": str(source), "revision": (path, *path.parents)[options.depth].name}
    return dataclasses.replace(checkpoint, provenance={**checkpoint.provenance, **fetched})


def _describe_content(path: Path) -> str:
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        if "model.json" in names:
            return describe_content(read_start(path / "model.json", START_BYTES))
        listed = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        return f"a directory with {listed}" if names else "an empty directory"
    regular_file_size(path)
    return describe_content(read_start(path, START_BYTES))
