"""A checkpoint as an ONNX file: floats with every weight as it is, integers in the form that is called QDQ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.onnx.own_metadata import describe
from minimobile.formats.onnx.write_graph import write_graph
from minimobile.formats.onnx.write_integers import write_integers
from minimobile.formats.onnx.write_model import Model, Operator, Size, Value, write_model
from minimobile.formats.validation import check_exportable
from minimobile.networks.build_graph import build_graph
from minimobile.networks.graph import Graph
from minimobile.networks.ssd import ANCHORS
from minimobile.operations.operation import Weights
from minimobile.operations.passes import keep_needed
from minimobile.storage.files import user_path, write_whole_bytes

SUFFIX = ".onnx"
BATCH = "batch"
_RESULTS = {"Model": ("last_hidden_state", "pooler_output"), "ForImageClassification": ("logits",),
            "ForSemanticSegmentation": ("logits",)}  # fmt: skip


def write(path: str | Path, checkpoint: Checkpoint, dtype: str = "float32", *, overwrite: bool = True) -> None:
    """Write a network for pictures of the config's size and any number of them (operator set 17, N, C, H, W).

    Its input is `pixel_values`, its outputs are transformers': `logits`, or `last_hidden_state` and `pooler_output`; a
    detector's are the maps of its predictors, and `anchors` where it has its own. Nodes are called as our layers are.
    The classes' names and the preprocessing are in the metadata. `dtype` "float16" halves the weights of floats; the
    file itself widens them.
    Written wholly or not at all. Raises FormatError for a network that has no form in such a file, InputError for a
    file that is there, unless `overwrite`.
    """
    path = user_path(path)
    check_exportable(path, checkpoint, dtype)
    if checkpoint.quantized is not None:
        model = write_integers(checkpoint.quantized, str(path))
    else:
        model = _write_floats(checkpoint, dtype, str(path))
    model = dataclasses.replace(model, description=checkpoint.architecture, metadata=describe(checkpoint))
    write_whole_bytes(path, write_model(model), overwrite=overwrite)


def write_network(graph: Graph, weights: Weights, shape: tuple[int, int, int, int]) -> bytes:
    """Return a file that computes a graph's outputs, called as its nodes, from pixel values of `shape` (N, C, H, W)."""
    return write_model(write_graph(graph, weights, shape))


def _write_floats(checkpoint: Checkpoint, dtype: str, where: str) -> Model:
    graph = build_graph(checkpoint.config, checkpoint.architecture)
    graph = keep_needed(graph, graph.outputs)
    if dtype == "float16":
        _check_half(checkpoint, graph, where)
    side = checkpoint.config.image_size
    size = (side, side) if isinstance(side, int) else (side[0], side[-1])
    shape: tuple[Size, int, int, int] = (BATCH, graph.input_channels, *size)
    results = next((names for ending, names in _RESULTS.items() if checkpoint.architecture.endswith(ending)), ())
    names = dict(zip(graph.outputs, results, strict=True)) if results else {}
    try:
        model = write_graph(graph, checkpoint.weights, shape, names, dtype)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    return _add_anchors(model, checkpoint) if checkpoint.config.ssd is not None else model


def _add_anchors(model: Model, checkpoint: Checkpoint) -> Model:
    """Return a detector's model with the checkpoint's own anchors (y, x, h, w) as a further output, if it has any."""
    anchors = checkpoint.weights.get(ANCHORS)
    if anchors is None:
        return model
    return dataclasses.replace(
        model,
        operators=(*model.operators, Operator("Identity", "anchors", (ANCHORS,), "anchors", {})),
        constants={**model.constants, ANCHORS: anchors.astype(np.float32)},
        outputs=(*model.outputs, Value("anchors", "float32", anchors.shape)),
    )


def _check_half(checkpoint: Checkpoint, graph: Graph, where: str) -> None:
    """Raise FormatError for a weight that float16 cannot hold."""
    limit = float(np.finfo(np.float16).max)
    for name in graph.shapes:
        largest = float(np.abs(checkpoint.weights[name]).max(initial=0.0))
        if np.isfinite(largest) and largest > limit:
            raise FormatError(
                f"{where}: {name}: expected values that float16 can hold (at most {limit:g}), found {largest:g}; store "
                "it as float32"
            )
