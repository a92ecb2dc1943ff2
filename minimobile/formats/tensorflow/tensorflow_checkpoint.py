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
from minimobile.formats.tensorflow.checkpoint_files import find_prefix
from minimobile.formats.tensorflow.tensor_bundle import Bundle
from minimobile.networks.config import Config
from minimobile.storage.hub import INDEX

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_PUBLISHED_NAME = re.compile(r"mobilenet_v[12]_[\d.]+_(\d{2,3})(?!\d)")


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
    """Read the index of the checkpoint that `path` names in any of the ways that `find_prefix` knows."""
    path = Path(path)
    prefix = find_prefix(path)
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


def _find_dialect(bundle: Bundle) -> Dialect:
    is_deeplab = any(name.startswith("logits/semantic/") for name in bundle)
    return DIALECTS["deeplab" if is_deeplab else "slim"]
