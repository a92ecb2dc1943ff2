"""File formats: one module each with `read(path)` and `describe(path)`, and the table that says whose a path is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import signatures
from minimobile.formats.boundary import with_one_error
from minimobile.formats.checkpoint import ARCHITECTURES, Checkpoint
from minimobile.formats.description import Description
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.formats.replaced_config import settle_quantized
from minimobile.formats.tensorflow import checkpoint_files
from minimobile.formats.validation import check_weights
from minimobile.networks.config import Config
from minimobile.storage.directories import refusing_replacement
from minimobile.storage.files import read_start, regular_file_size, user_path
from minimobile.storage.hub import CONFIG, NO_OPTIONS, HubOptions, locate, locate_checkpoint

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
    """One row: what to call it, whether a path is one (by content), and the module that reads it.

    The first row that recognises a path has it. The module is imported when there is a file for it, and has `read`,
    which takes a path and perhaps a config, and `describe`, which may raise what `read` does, and tells whatever it can
    of a file that `read` refuses.
    """

    name: str
    test: Callable[[Path], bool]
    module: str

    def recognise(self, path: Path) -> bool:
        """Say whether a path is of this format."""
        return with_one_error(self.test)(path)

    def read(self, path: Path, **named: Any) -> Checkpoint:
        """Read a file of this format; the arguments are those of its module's `read`."""
        checkpoint: Checkpoint = with_one_error(self._import().read)(path, **named)
        return checkpoint

    def describe(self, path: Path) -> Description:
        """Say what is in a file of this format."""
        description: Description = with_one_error(self._import().describe)(path)
        return description

    def _import(self) -> ModuleType:
        return import_module(f"minimobile.formats.{self.module}")


FORMATS = (
    Format("a TensorFlow SavedModel", signatures.is_saved_model, "tensorflow.saved_model"),
    # before all files, for its path need not be a file's
    Format("a TensorFlow checkpoint", checkpoint_files.is_checkpoint, "tensorflow.tensorflow_checkpoint"),
    Format("TFLite (LiteRT)", signatures.is_tflite, "tflite.tflite"),
    Format("HDF5 (the native file, or Keras')", signatures.is_hdf5, "hdf5_kinds"),
    Format("a Keras archive", signatures.is_keras_archive, "keras.keras"),
    Format(
        "safetensors or PyTorch weights (of transformers, torchvision or timm)",
        signatures.is_torch_weights,
        "pytorch.torch_models",
    ),
    Format("a Hugging Face directory", signatures.is_huggingface, "huggingface"),
    Format("ONNX", signatures.is_onnx, "onnx.onnx_file"),
    Format("a frozen TensorFlow graph", signatures.is_tensorflow_graph, "tensorflow.tensorflow_graph"),
    Format("a TensorFlow.js model", signatures.is_tensorflow_js, "tensorflow_js.tensorflow_js"),
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
    with refusing_replacement(_read_together(path), CONFIG):
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
    with refusing_replacement(_read_together(path), CONFIG):
        return _examine(path, source, options)


def _examine(path: Path, source: str | Path, options: HubOptions) -> tuple[Description, Checkpoint | None]:
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


def _read_together(path: Path) -> Path:
    """Return the directory whose config.json is read with a path: itself, or where a single file of weights lies."""
    try:
        is_single = path.is_file() and with_one_error(signatures.is_torch_weights)(path)
    except MinimobileError:  # said when it is read
        is_single = False
    return path.parent if is_single else path


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
