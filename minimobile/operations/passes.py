"""Passes, graph -> graph: fold batch norm, fuse activations and residuals, drop what is not needed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.operations.table import is_convolution, operation_of


def keep_needed(graph: Graph, outputs: Sequence[str]) -> Graph:
    """Return the graph that computes `outputs` (node names) and nothing else."""
    nodes = needed_nodes(graph, outputs)
    used = {name for node in nodes for name in node.weights.values()}
    shapes = {name: shape for name, shape in graph.shapes.items() if name in used}
    return Graph(nodes, graph.input_channels, tuple(outputs), shapes)


def fold_batch_norm(graph: Graph) -> Graph:
    """Return the graph in which every batch norm after a convolution is part of it.

    The folded convolution takes the batch norm's name and attributes and holds its weights beside its own (roles
    "scale", "shift", "mean", "variance"); `layout_weights` does the arithmetic. A convolution whose plain result is
    asked for stays as well, so that no other value changes by asking.
    """
    return keep_needed(dataclasses.replace(graph, nodes=fold_nodes(graph.nodes)), graph.outputs)


def fold_nodes(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes, each batch norm after one of the convolutions replaced by the folded convolution."""
    named = {node.name: node for node in nodes}

    def fold(node: Node) -> Node:
        convolution = named.get(node.inputs[0])
        if not operation_of(node).is_normalization or convolution is None or not is_convolution(convolution):
            return node
        roles = {"scale": "weight", "shift": "bias", "mean": "mean", "variance": "variance"}
        normalization = {role: node.weights[trained] for role, trained in roles.items()}
        return dataclasses.replace(
            convolution,
            name=node.name,
            attributes={**convolution.attributes, **node.attributes},
            weights={**convolution.weights, **normalization},
        )

    return tuple(fold(node) for node in nodes)


def fuse_activations(graph: Graph, has_curves: bool = False) -> Graph:
    """Return the graph in which a clamp (relu, relu6) is done by the convolution or sum before it, where nobody else
    asks for that value. The fused node has the activation's name and an attribute "activation".

    With `has_curves` any activation is, which no kernel does: to compare a graph with another.
    """
    consumers = count_consumers(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[0])
        clamp = operation_of(node).clamp(node)
        if has_curves:
            clamp = node.attributes.get("function", clamp)
        takes_clamp = source is not None and operation_of(source).takes_clamps and "activation" not in source.attributes
        if clamp is not None and source is not None and takes_clamp and consumers[source.name] == 1:
            attributes = {**source.attributes, "activation": clamp}
            nodes.pop(source.name)
            nodes[node.name] = dataclasses.replace(source, name=node.name, attributes=attributes)
        else:
            nodes[node.name] = node
    return dataclasses.replace(graph, nodes=tuple(nodes.values()))


def fuse_residuals(graph: Graph) -> Graph:
    """Return the graph in which a residual sum is done by the pointwise convolution that makes its second term.

    The fused node has the sum's name and a second input, which is added after the bias.
    """
    consumers = count_consumers(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[-1])
        is_plain = (
            source is not None
            and operation_of(source).takes_residuals
            and len(source.inputs) == 1
            and "activation" not in source.attributes
        )
        if operation_of(node).is_sum and source is not None and is_plain and consumers[source.name] == 1:
            inputs = (source.inputs[0], node.inputs[0])
            attributes = {**source.attributes, **node.attributes}
            nodes.pop(source.name)
            nodes[node.name] = dataclasses.replace(source, name=node.name, inputs=inputs, attributes=attributes)
        else:
            nodes[node.name] = node
    return dataclasses.replace(graph, nodes=tuple(nodes.values()))


def count_consumers(graph: Graph) -> Counter[str]:
    """Count who asks for each node's value: the inputs of others, and the outputs."""
    return Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))


def lower(graph: Graph, outputs: Sequence[str]) -> Graph:
    """Return the graph that is compiled for `outputs` (node names): what they need, batch norm folded, all fused."""
    return fuse_residuals(fuse_activations(fold_batch_norm(keep_needed(graph, outputs))))
