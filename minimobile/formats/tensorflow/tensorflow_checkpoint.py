"""TensorFlow checkpoints of its Saver (the V2 format: an index and shards of data) with TF-slim's variable names."""

from __future__ import annotations

import re
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.deduction import build_checkpoint
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import DIALECTS, Dialect
from minimobile.formats.ranges import add_ranges
from minimobile.formats.tensorflow import slim_names, slim_ranges, sorted_table
from minimobile.formats.tensorflow.tensor_bundle import Bundle
from minimobile.networks.config import Config
from minimobile.storage.files import read_limited
from minimobile.storage.hub import CONFIG, INDEX

LATEST = "checkpoint"  # the file in a directory that names its newest checkpoint
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)
_PUBLISHED_NAME = re.compile(r"mobilenet_v[12]_[\d.]+_(\d{2,3})(?!\d)")


def recognise(path: Path) -> bool:
    """Say whether `path` is a checkpoint: its common prefix, its index, one of its shards, or a directory with one."""
    prefix = _find_prefix(path)
    if prefix is None:
        return path.is_file() and sorted_table.recognise(path)
    if path.is_dir() and (path / CONFIG).exists():
        return False  # transformers' or timm's weights are beside it, and with a config
    if path.is_dir():
        return prefix.with_name(prefix.name + INDEX).is_file()
    return not path.name.endswith(INDEX) or sorted_table.recognise(path) or _has_shards(prefix)


def read(path: str | Path, config: Config | None = None) -> Checkpoint:
    """Read a checkpoint with TF-slim's names; `config` stands in for what the shapes and the file's name tell.

    One trained with fake quantisation brings its ranges.

    Raises FormatError where a file is missing, damaged, hostile or of another kind of network.
    """
    bundle = open_bundle(path)
    where = str(bundle.index)
    if OBJECT_GRAPH in bundle:
        raise FormatError(
            f"{where}: expected variables under TF-slim's names, found an object-based checkpoint "
            "(tf.train.Checkpoint, or Keras' save_weights); save the model as .keras or .weights.h5 and load that"
        )
    quantizers = slim_ranges.read_ranges(bundle, where)
    weights, mapped, ignored = slim_names.canonical_weights(bundle, where)
    dialect = _find_dialect(bundle)
    is_deeplab = dialect.name == "deeplab"
    published = _PUBLISHED_NAME.search(bundle.prefix.name)
    size = int(published[1]) if published and not is_deeplab else None
    checkpoint = build_checkpoint(
        weights,
        dialect,
        where,
        config=config,
        image_size=(size, size) if size else None,
        provenance={"format": "tensorflow-checkpoint", "source": bundle.prefix.name},
        mapped=mapped | quantizers.mapped,
        ignored=ignored | quantizers.ignored,
    )
    return add_ranges(checkpoint, quantizers.ranges, where, quantizers.called)


def describe(path: str | Path) -> Description:
    """Say what a checkpoint holds, whatever network it is of; errors are those of `read`."""
    bundle = open_bundle(path)
    entries = tuple(Entry(name, found.shape, found.dtype) for name, found in bundle.variables.items())
    kind = "object-based TensorFlow checkpoint" if OBJECT_GRAPH in bundle else "TensorFlow checkpoint"
    is_slim = not set(bundle).isdisjoint(slim_names.variable_targets())
    dialect = _find_dialect(bundle).name if is_slim else None
    return Description(kind, dialect, "tensorflow", entries, {"shards": str(bundle.shard_count)})


def open_bundle(path: str | Path) -> Bundle:
    """Read the index of the checkpoint that `path` names in any of the ways that `recognise` knows."""
    path = Path(path)
    prefix = _find_prefix(path)
    if prefix is None:
        if path.is_file() and sorted_table.recognise(path):
            raise FormatError(
                f"{path}: expected a TensorFlow checkpoint of the V2 format (an .index file and .data files), found "
                "one of the V1 format, or an index under another name; save it anew with TensorFlow 1.0 or later"
            )
        raise FormatError(f"{path}: expected a TensorFlow checkpoint, found none")
    if not prefix.with_name(prefix.name + INDEX).exists():
        raise FormatError(f"{path}: expected the index {prefix.name}{INDEX} beside it, found none; get it, too")
    return Bundle(prefix)


def _find_prefix(path: Path) -> Path | None:
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


def _find_dialect(bundle: Bundle) -> Dialect:
    is_deeplab = any(name.startswith("logits/semantic/") for name in bundle)
    return DIALECTS["deeplab" if is_deeplab else "slim"]
