"""File formats: one module each, `recognise(path)` and `read(path) -> Checkpoint`, and the table of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minimobile.config import MobileNetV1Config, MobileNetV2Config
from minimobile.errors import FormatError
from minimobile.formats import hdf5, huggingface
from minimobile.formats.checkpoint import ARCHITECTURES, Checkpoint
from minimobile.formats.files import read_start, regular_file_size
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.formats.hub import locate, locate_checkpoint
from minimobile.formats.validation import check_weights

__all__ = ["ARCHITECTURES", "FORMATS", "Checkpoint", "Format", "check_weights", "locate", "read"]


class Format(NamedTuple):
    """One row of the table: what to call it, whether a path is one (by content), and how to read it."""

    name: str
    recognise: Callable[[Path], bool]
    read: Callable[..., Checkpoint]


FORMATS = (
    Format("the native HDF5 file", hdf5.recognise, hdf5.read),
    Format("Hugging Face (a directory, safetensors or PyTorch weights)", huggingface.recognise, huggingface.read),
)


def read(
    source: str | Path,
    *,
    config: MobileNetV1Config | MobileNetV2Config | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> Checkpoint:
    """Read a checkpoint: a directory or file of any known format, or a hub id (`google/mobilenet_v2_1.0_224`).

    `config` replaces the file's own. `revision` and `cache_dir` concern the hub only. Raises FormatError for a file
    that is missing, damaged, hostile or unknown, ConfigError for a config that is none of ours, UnavailableError where
    the hub cannot be reached.
    """
    path = locate_checkpoint(source, revision=revision, cache_dir=cache_dir)
    for entry in FORMATS:
        if entry.recognise(path):
            checkpoint = entry.read(path) if config is None else entry.read(path, config=config)
            if path == Path(source).expanduser():
                return checkpoint
            fetched = {"source": str(source), "revision": path.name}
            return dataclasses.replace(checkpoint, provenance={**checkpoint.provenance, **fetched})
    known = "; ".join(entry.name for entry in FORMATS)
    raise FormatError(f"{path}: expected one of the known formats ({known}), found {_describe(path)}")


def _describe(path: Path) -> str:
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        listed = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        return f"a directory with {listed}" if names else "an empty directory"
    regular_file_size(path)
    return describe_content(read_start(path, START_BYTES))
