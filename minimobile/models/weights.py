"""A network's weights as a dict of arrays: drawn at random, or fitted to the graph that a model runs."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import HEADS
from minimobile.formats.safetensors_file import is_counter
from minimobile.formats.validation import check_weights
from minimobile.networks.graph import Graph, needed_nodes

Weights = dict[str, NDArray[Any]]


def draw_weights(graph: Graph, initializer_range: float, seed: int) -> Weights:
    """Return fresh float32 weights as transformers initialises them: normal kernels, zero biases, idle batch norms.

    The standard deviation is `initializer_range` (0.02 where that is 0, as in transformers).
    """
    generator = np.random.default_rng(seed)
    constants = {"bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    weights: Weights = {}
    for name, shape in graph.shapes.items():
        role = name.rpartition(".")[2]
        if role in constants:
            weights[name] = np.full(shape, constants[role], np.float32)
        elif ".normalization." in name:
            weights[name] = np.ones(shape, np.float32)
        else:
            weights[name] = (generator.standard_normal(shape) * (initializer_range or 0.02)).astype(np.float32)
    return weights


def idle_weights(shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    """Return float32 weights of layers that nothing depends on: kernels of zeros, batch norms that change nothing."""
    ones = (".normalization.weight", ".normalization.running_var")
    return {name: np.full(shape, float(name.endswith(ones)), np.float32) for name, shape in shapes.items()}


def fit_weights(weights: Mapping[str, NDArray[Any]], graph: Graph, where: str) -> tuple[Weights, Graph]:
    """Return the weights that `graph` names, and the graph; raise FormatError with all that is amiss.

    Heads that the graph has not are left out. Where weights are missing that no output needs (`conv_1x1` of a
    segmentation network, which DeepLab's own checkpoints lack), the graph comes back without their layers.
    """
    heads = [name for name in graph.shapes if name.startswith(HEADS)]
    if heads and not any(name in weights for name in heads):
        raise FormatError(
            f"{where}: expected the head {', '.join(heads[:12])}, found a model without it; load it with the class it "
            "was saved from, or with AutoModel"
        )
    kept = {
        name: values
        for name, values in weights.items()
        if name in graph.shapes or not (name.startswith(HEADS) or name.endswith(".num_batches_tracked"))
    }
    trimmed = trim(graph)
    if any(name not in kept for name in set(graph.shapes) - set(trimmed.shapes)):
        kept = {name: values for name, values in kept.items() if name in trimmed.shapes or name not in graph.shapes}
        graph = trimmed
    check_weights(kept, graph.shapes, where)
    return {name: kept[name] for name in graph.shapes}, graph


def redraw_mismatched(weights: Mapping[str, NDArray[Any]], graph: Graph) -> Weights:
    """Return the weights with those whose shape is not the graph's drawn anew, and warn of them.

    transformers does so for a head of another number of classes. Nothing else is changed.
    """
    names = [name for name, shape in graph.shapes.items() if name in weights and weights[name].shape != shape]
    if not names:
        return dict(weights)
    warnings.warn(
        f"{', '.join(names)}: drawn at random, for the source has them in other shapes; what depends on them has not "
        "been trained",
        stacklevel=4,
    )
    drawn = draw_weights(graph, 0.02, seed=0)
    return {**weights, **{name: drawn[name] for name in names}}


def list_differences(stored: Mapping[str, NDArray[Any]], used: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what transformers' `output_loading_info` tells: names that are missing, left out, or of other shapes."""
    shared = [name for name in used if name in stored]
    return {
        "missing_keys": set(used) - set(stored),
        "unexpected_keys": {name for name in stored if name not in used and not is_counter(name)},
        "mismatched_keys": {
            (name, stored[name].shape, used[name].shape) for name in shared if stored[name].shape != used[name].shape
        },
        "error_msgs": [],
    }


def trim(graph: Graph) -> Graph:
    """Return the graph without the nodes, weights and names that no output and no hidden state needs."""
    nodes = needed_nodes(graph, (*graph.outputs, *graph.hidden_states))
    names = {node.name for node in nodes}
    shapes = {weight: graph.shapes[weight] for node in nodes for weight in node.weights.values()}
    aliases = {alias: name for alias, name in graph.aliases.items() if name in names}
    return dataclasses.replace(graph, nodes=nodes, shapes=shapes, aliases=aliases)
