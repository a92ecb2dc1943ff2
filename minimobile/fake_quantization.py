"""Networks trained for quantisation: their ranges, and the graph that rounds as their training did.

Source: Jacob et al. (arXiv 1712.05877), section 3; TensorFlow 1.15, `tf.contrib.quantize`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from minimobile.graph import Graph, Node, needed_nodes
from minimobile.shapes import CONVOLUTIONS

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
    """
    named = {node.name: node for node in graph.nodes}
    normalized = {node.inputs[0] for node in graph.nodes if node.op == "batch_norm"}
    nodes: list[Node] = []
    for node in graph.nodes:
        weight = (named[node.inputs[0]] if node.op == "batch_norm" else node).weights.get("weight", "")
        attributes = dict(node.attributes)
        if weight in ranges and node.name not in normalized:
            attributes["weight_quantization"] = ranges[weight]
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
