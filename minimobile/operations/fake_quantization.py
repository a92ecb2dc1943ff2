"""Networks trained for quantisation: their ranges, and the graph and weights that round as their training did.

A value next to the middle of two steps goes the other way with the last bit of a sum, and 45 % of DeepLab's logits go
with it: only the order and precision in which TensorFlow itself sums and folds give its logits.

Source: Jacob et al. (arXiv 1712.05877), section 3; TensorFlow 1.15, `tf.contrib.quantize`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.operations.table import is_convolution, operation_of


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
    normalized = {node.inputs[0] for node in graph.nodes if operation_of(node).is_normalization}
    nodes: list[Node] = []
    for node in graph.nodes:
        operation = operation_of(node)
        weight = (named[node.inputs[0]] if operation.is_normalization else node).weights.get("weight", "")
        attributes = {**node.attributes, **operation.attributes_as_trained(node, graph.shapes)}
        if weight in ranges and node.name not in normalized:
            attributes["weight_quantization"] = ranges[weight]
        is_rounded = node.name in ranges and operation.rounded_step is not None
        step = f"{node.name}.{operation.rounded_step}" if is_rounded else node.name
        nodes.append(dataclasses.replace(node, name=step, attributes=attributes))
        if is_rounded:
            nodes.append(Node(node.name, "fake_quantize", (step,), {"quantization": ranges[node.name]}))
    names = {node.name for node in nodes}
    aliases = {alias: name for alias, name in graph.aliases.items() if alias not in names}
    return dataclasses.replace(graph, nodes=tuple(nodes), aliases=aliases)


def needed_ranges(graph: Graph) -> tuple[str, ...]:
    """Return the keys of the `Ranges` that training for quantisation gives a graph, of what its outputs need.

    Those are every kernel, and the values of every layer and of every sum; pools, joins and resizes add none.
    """
    nodes = needed_nodes(graph, graph.outputs)
    steps = {node.inputs[0] for node in nodes if operation_of(node).is_step}
    keys = []
    for node in nodes:
        keys += [node.weights["weight"]] if is_convolution(node) else []
        keys += [node.name] if operation_of(node).rounded_step is not None and node.name not in steps else []
    return tuple(keys)
