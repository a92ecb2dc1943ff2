"""Networks trained for quantisation: their ranges, and the graph and weights that round as their training did.

A value next to the middle of two steps goes the other way with the last bit of a sum, and 45 % of DeepLab's logits go
with it: only the order and precision in which TensorFlow itself sums and folds give its logits.

Source: Jacob et al. (arXiv 1712.05877), section 3; TensorFlow 1.15, `tf.contrib.quantize`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.networks.shapes import CONVOLUTIONS

Floats = NDArray[np.float32]
VECTOR = 8  # floats, of the instructions that TensorFlow's builds for x86 take

# What the step before the rounding is called; the rounded values have the layer's own name.
_STEPS = {"activation": "activation", "batch_norm": "normalization", "pointwise_conv2d": "convolution", "add": "add"}


class FakeQuantization(NamedTuple):
    """How training rounds: to 2 ** num_bits numbers from `minimum` to `maximum`, one less if narrow.

    The numbers are those of `reference.nudge_range`.
    """

    minimum: float
    maximum: float
    num_bits: int = 8
    narrow_range: bool = False


Ranges = Mapping[str, FakeQuantization]
"""By the canonical name of a weight (rounded with batch norm folded into it), and by the node whose values it is of."""


def add_fake_quantization(graph: Graph, ranges: Ranges) -> Graph:
    """Return the graph that rounds weights and values as `ranges` say; a node keeps its name for the rounded values.

    What a node had before is a step of it (`layer.3.activation`). Ranges of what the graph has not are passed over.
    Convolutions sum all their terms in one chain, and pools in float32.
    """
    named = {node.name: node for node in graph.nodes}
    normalized = {node.inputs[0] for node in graph.nodes if node.op == "batch_norm"}
    nodes: list[Node] = []
    for node in graph.nodes:
        weight = (named[node.inputs[0]] if node.op == "batch_norm" else node).weights.get("weight", "")
        attributes = dict(node.attributes)
        if weight in ranges and node.name not in normalized:
            attributes["weight_quantization"] = ranges[weight]
        if node.op in ("conv2d", "pointwise_conv2d"):
            attributes["block"] = math.prod(graph.shapes[node.weights["weight"]][1:])
        elif node.op in ("average_pool2d", "global_average_pool2d"):
            attributes["precision"] = "float32"
        step = f"{node.name}.{_STEPS[node.op]}" if node.name in ranges else node.name
        nodes.append(dataclasses.replace(node, name=step, attributes=attributes))
        if node.name in ranges:
            nodes.append(Node(node.name, "fake_quantize", (step,), {"quantization": ranges[node.name]}))
    names = {node.name for node in nodes}
    aliases = {alias: name for alias, name in graph.aliases.items() if alias not in names}
    return dataclasses.replace(graph, nodes=tuple(nodes), aliases=aliases)


def needed_ranges(graph: Graph) -> tuple[str, ...]:
    """Return the keys of the `Ranges` that training for quantisation gives a graph, of what its outputs need.

    Those are every kernel, and the values of every layer and of every sum; pools, joins and resizes add none.
    """
    nodes = needed_nodes(graph, graph.outputs)
    steps = {node.inputs[0] for node in nodes if node.op in ("batch_norm", "activation")}
    keys = []
    for node in nodes:
        keys += [node.weights["weight"]] if node.op in CONVOLUTIONS else []
        keys += [node.name] if node.op in _STEPS and node.name not in steps else []
    return tuple(keys)


def fold_as_trained(
    weight: NDArray[Any],
    bias: NDArray[Any],
    scale: NDArray[Any],
    shift: NDArray[Any],
    mean: NDArray[Any],
    variance: NDArray[Any],
    epsilon: float,
) -> tuple[Floats, Floats]:
    """Fold batch norm in float32, rounded at every operation, as the graph of the training does it.

    With factor = scale * inverse_root(variance + epsilon): weight * factor, and shift - (mean - bias) * factor.
    Shapes: weight (C, ...) and the first result, all others (C).
    """
    weight, bias, scale, shift, mean, variance = (
        np.asarray(values, np.float32) for values in (weight, bias, scale, shift, mean, variance)
    )
    factor = scale * inverse_root(variance + np.float32(epsilon))
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), shift - (mean - bias) * factor


def inverse_root(x: Floats) -> Floats:
    """Return 1 / sqrt(x), wrong in the last bits as TensorFlow's `Rsqrt` is. Shape: x (C), and the result.

    Whole vectors are estimates y from a table and a Newton step, y + (-y / 2) * (x * y * y - 1), rounded at every
    operation; what is left of the last vector is divided. The table is that of Intel's RSQRTPS: 1 / sqrt of the middle
    of each 1024th of an octave, to 13 bits. (On a processor with another table TensorFlow has other bits.)
    Source: Eigen, `generic_rsqrt_newton_step`; measured on all floats from 1 to 4.

    >>> inverse_root(np.full(9, 2, np.float32))[[0, 8]]
    array([0.7071067 , 0.70710677], dtype=float32)
    """
    with np.errstate(all="ignore"):
        plain = np.float32(1) / np.sqrt(x)
        fraction, exponent = np.frexp(x.astype(np.float64))
        middle = np.ldexp(np.floor(fraction * 2048) + 0.5, exponent - 11)
        fraction, exponent = np.frexp(1 / np.sqrt(middle))
        estimate = np.ldexp(np.floor(fraction * 8192 + 0.5), exponent - 13).astype(np.float32)
        refined = estimate + np.float32(-0.5) * estimate * (x * estimate * estimate - 1)
    is_estimated = (np.arange(len(x)) < len(x) // VECTOR * VECTOR) & (x > 0) & np.isfinite(x)
    result: Floats = np.where(is_estimated, refined, plain)
    return result
