"""Which files are a TensorFlow checkpoint of the V2 format: an index and shards of data, with a prefix in common."""

from __future__ import annotations

import re
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.formats.tensorflow import sorted_table
from minimobile.storage.files import read_limited
from minimobile.storage.hub import CONFIG, INDEX

LATEST = "checkpoint"  # the file in a directory that names its newest checkpoint
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)


def is_checkpoint(path: Path) -> bool:
    """Say whether `path` is a checkpoint: its common prefix, its index, one of its shards, or a directory with one."""
    prefix = find_prefix(path)
    if prefix is None:
        return path.is_file() and sorted_table.recognise(path)
    if path.is_dir() and (path / CONFIG).exists():
        return False  # transformers' or timm's weights are beside it, and with a config
    if path.is_dir():
        return prefix.with_name(prefix.name + INDEX).is_file()
    return not path.name.endswith(INDEX) or sorted_table.recognise(path) or _has_shards(prefix)


def find_prefix(path: Path) -> Path | None:
    """Return what the names of a checkpoint's files have in common; None where `path` leads to no checkpoint."""
    if path.is_dir():
        if (path / LATEST).is_file():
            return path / _read_latest(path / LATEST)
        indices = list(path.glob(f"?*{INDEX}"))
        return indices[0].with_name(indices[0].name.removesuffix(INDEX)) if len(indices) == 1 else None
    data = _DATA.fullmatch(path.name)
    if data:
        return path.with_name(data[1])
    if path.name.endswith(INDEX) and path.name != INDEX:
        return path.with_name(path.name.removesuffix(INDEX))
    return path if path.name and path.with_name(path.name + INDEX).is_file() else None


def _read_latest(path: Path) -> str:
    """Return the name of the newest checkpoint in a directory. The path before it is that of whoever wrote it."""
    text = read_limited(path, 2**20).decode("utf-8", "replace")
    found = re.search(r'^\s*model_checkpoint_path\s*:\s*"([^"\\\n]+)"', text, re.MULTILINE)
    name = found[1].rpartition("/")[2] if found else ""
    if name in ("", ".", "..") or "\0" in name:
        raise FormatError(f"{path}: expected it to name the newest checkpoint (model_checkpoint_path), found none")
    return name


def _has_shards(prefix: Path) -> bool:
    matches = (_DATA.fullmatch(entry.name) for entry in prefix.parent.glob("*.data-*"))
    return any(match and match[1] == prefix.name for match in matches)
