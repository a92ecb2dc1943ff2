"""Passes, graph -> graph: fold batch norm, fuse activations and residuals, drop what is not needed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.fake_quantization import fold_as_trained
from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.networks.shapes import CONVOLUTIONS
from minimobile_kernels.elementwise import CLAMPS
from minimobile_kernels.reference import fake_quantize, nudge_range

Weights = Mapping[str, NDArray[Any]]


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
        if node.op != "batch_norm" or convolution is None or convolution.op not in CONVOLUTIONS:
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


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph in which a clamp (relu, relu6) is done by the convolution or sum before it, where nobody else
    asks for that value. The fused node has the activation's name and an attribute "activation".
    """
    consumers = _count_consumers(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[0])
        is_clamp = node.op == "activation" and node.attributes["function"] in CLAMPS
        if is_clamp and source is not None and source.op in (*CONVOLUTIONS, "add") and consumers[source.name] == 1:
            attributes = {**source.attributes, "activation": node.attributes["function"]}
            nodes.pop(source.name)
            nodes[node.name] = dataclasses.replace(source, name=node.name, attributes=attributes)
        else:
            nodes[node.name] = node
    return dataclasses.replace(graph, nodes=tuple(nodes.values()))


def fuse_residuals(graph: Graph) -> Graph:
    """Return the graph in which a residual sum is done by the pointwise convolution that makes its second term.

    The fused node has the sum's name and a second input, which is added after the bias.
    """
    consumers = _count_consumers(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[-1])
        is_plain = (
            source is not None
            and source.op == "pointwise_conv2d"
            and len(source.inputs) == 1
            and "activation" not in source.attributes
        )
        if node.op == "add" and source is not None and is_plain and consumers[source.name] == 1:
            inputs = (source.inputs[0], node.inputs[0])
            attributes = {**source.attributes, **node.attributes}
            nodes.pop(source.name)
            nodes[node.name] = dataclasses.replace(source, name=node.name, inputs=inputs, attributes=attributes)
        else:
            nodes[node.name] = node
    return dataclasses.replace(graph, nodes=tuple(nodes.values()))


def _count_consumers(graph: Graph) -> Counter[str]:
    """Count who asks for each node's value: the inputs of others, and the outputs."""
    return Counter([name for node in graph.nodes for name in node.inputs] + list(graph.outputs))


def lower(graph: Graph, outputs: Sequence[str]) -> Graph:
    """Return the graph that is compiled for `outputs` (node names): what they need, batch norm folded, all fused."""
    return fuse_residuals(fuse_activations(fold_batch_norm(keep_needed(graph, outputs))))


def layout_weights(node: Node, weights: Weights, dtype: type[np.floating[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of a convolution node as the kernels take them, batch norm folded in.

    Folding is done in float64 and rounded once to `dtype`: weight * scale / sqrt(variance + epsilon), and
    shift - mean * scale / sqrt(variance + epsilon). Source: Jacob et al. (arXiv 1712.05877), section 3.2, equation 14.
    With the attribute "weight_quantization" it is done by `fold_as_trained`, and the folded weight rounded to the grid
    of that range, in float32.

    Shapes: weight (C_out, K_h, K_w, C_in), depthwise (K_h, K_w, C), pointwise (C_out, C_in); bias (C_out).
    """
    weight: NDArray[Any] = weights[node.weights["weight"]].astype(np.float64)
    channels = weight.shape[0]
    bias: NDArray[Any] = (
        weights[node.weights["bias"]].astype(np.float64) if "bias" in node.weights else np.zeros(channels)
    )
    if "scale" in node.weights:
        scale, shift, mean, variance = (
            weights[node.weights[role]].astype(np.float64) for role in ("scale", "shift", "mean", "variance")
        )
        epsilon = node.attributes["epsilon"]
        with np.errstate(all="ignore"):
            if "weight_quantization" in node.attributes:
                weight, bias = fold_as_trained(weight, bias, scale, shift, mean, variance, epsilon)
            else:
                scale = scale / np.sqrt(variance + epsilon)
                weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
                bias = (bias - mean) * scale + shift
    if "weight_quantization" in node.attributes:
        weight = fake_quantize(weight.astype(np.float32), nudge_range(*node.attributes["weight_quantization"]))
    if node.op == "depthwise_conv2d":
        weight = weight[:, 0].transpose(1, 2, 0)  # (C, 1, K_h, K_w) -> (K_h, K_w, C)
    elif node.op == "conv2d":
        weight = weight.transpose(0, 2, 3, 1)  # (C_out, C_in, K_h, K_w) -> (C_out, K_h, K_w, C_in)
    else:
        weight = weight.reshape(channels, -1)
    bias = bias + 0.0  # -0 becomes 0
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(weight.astype(dtype)), bias.astype(dtype)
