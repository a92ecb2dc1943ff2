"""What becomes of a model: files of any format that is written, data, and a hash of what it computes with."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from pathlib import Path
from typing import Any

from minimobile.formats import huggingface
from minimobile.formats.checkpoint import Checkpoint
from minimobile.models.requests import check_save_options
from minimobile.quantized.network import Network
from minimobile.storage.files import user_path


class Saving:
    """A model's ways into a file."""

    config: Any
    _checkpoint: Checkpoint
    _integers: Network | None

    @abstractmethod
    def _require_floats(self, what: str) -> None:
        """Raise InputError for a model that runs in integers."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json, as transformers reads them.

        `options` are transformers' (`safe_serialization=True`, `max_shard_size`, ...). Raises InputError for those that
        ask for other files, FormatError where nothing can be written.
        """
        check_save_options(options)
        huggingface.write(save_directory, self.to_checkpoint())

    def save(self, path: str | Path, dtype: str = "float32") -> None:
        """Write our native HDF5 file, or what a name ending in .tflite or .onnx says; `dtype="float16"` halves any.

        All of them keep integers as they are. Raises FormatError for what has no form in a file, and writes none,
        InputError for an ending that is another format's, or one of these misspelt.
        """
        from minimobile.formats import hdf5
        from minimobile.formats.onnx import write as onnx_file
        from minimobile.formats.tflite import tflite
        from minimobile.models.layouts import refuse_foreign

        refuse_foreign(user_path(path))
        name = str(path).lower()
        if name.endswith(tflite.SUFFIX):
            tflite.write(path, self._as_checkpoint(), dtype)
        elif name.endswith(onnx_file.SUFFIX):
            onnx_file.write(path, self._as_checkpoint(), dtype)
        else:
            hdf5.write(path, self._as_checkpoint(), dtype)

    def to_checkpoint(self) -> Checkpoint:
        """Return the model as data, as the formats write it; raises InputError for one that runs in integers."""
        self._require_floats("to_checkpoint")
        return self._as_checkpoint()

    def _as_checkpoint(self) -> Checkpoint:
        name = type(self).__name__
        config = self.config.replace(architectures=(name,))
        own = self._checkpoint
        return dataclasses.replace(own, config=config, architecture=name, quantized=self._integers, obstacle=None)

    def digest(self) -> str:
        """Return a SHA-256 of what the model computes with; it does not depend on the file that it was read from."""
        from minimobile.models.digest import digest

        return digest(self._checkpoint)
