"""A network as calibration sees it: convolutions with weight and bias, each with its activation, and sums of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.graph import Graph, Node
from minimobile.networks.ssd import find_results
from minimobile.operations.folding import fold_weights
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_batch_norm, fuse_activations, keep_needed
from minimobile.operations.table import is_convolution, operation_of

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Normal:
    """What batch norm makes of a convolution's values: in training, each channel's had this mean and deviation.

    Shapes: mean, deviation (C).
    """

    mean: Doubles
    deviation: Doubles


@dataclass(frozen=True)
class FoldedNetwork:
    """A graph without batch norm whose activations are part of the node before, and its weights in float64.

    A convolution's node has the roles "weight" and "bias"; weights have PyTorch's layouts, so that the first axis is
    that of the output channels: (C_out, C_in, K_h, K_w), depthwise (C, 1, K_h, K_w). `normals` are those of
    convolutions that had a batch norm, before the activation.
    """

    graph: Graph
    weights: Mapping[str, Doubles]
    normals: Mapping[str, Normal] = field(default_factory=dict)

    def convolutions(self) -> tuple[Node, ...]:
        """Return the nodes that have weights, in order."""
        return tuple(node for node in self.graph.nodes if is_convolution(node))

    def replace(self, changed: Mapping[str, Doubles]) -> FoldedNetwork:
        """Return the network with other weights for some names."""
        return dataclasses.replace(self, weights={**self.weights, **changed})


def fold(graph: Graph, weights: Weights) -> FoldedNetwork:
    """Return the folded network of a graph's results; what its other outputs hold is computed on the way.

    Weights are those that the engine computes with: folded in float64 and rounded once, to float32.
    """
    settled = fuse_activations(fold_batch_norm(keep_needed(graph, find_results(graph))))
    nodes, found, normals = [], dict[str, Doubles](), dict[str, Normal]()
    for node in settled.nodes:
        if not is_convolution(node):
            nodes.append(node)
            continue
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which calibration refuses by name
            weight, bias = (values.astype(np.float32).astype(np.float64) for values in fold_weights(node, weights))
        names = {"weight": node.weights["weight"], "bias": f"{node.name}.bias"}
        found |= {names["weight"]: weight, names["bias"]: bias}
        if "scale" in node.weights:
            shift, scale = (weights[node.weights[role]].astype(np.float64) for role in ("shift", "scale"))
            normals[node.name] = Normal(shift, np.abs(scale))
        nodes.append(dataclasses.replace(node, weights=names))
    shapes = {name: values.shape for name, values in found.items()}
    folded = Graph(tuple(nodes), settled.input_channels, settled.outputs, shapes)
    return FoldedNetwork(folded, found, normals)


def has_statistics(graph: Graph, weights: Weights) -> bool:
    """Tell whether batch norm's statistics are still those of training: readers of folded files put idle ones."""
    roles = [node.weights for node in graph.nodes if operation_of(node).is_normalization]
    return bool(roles) and not all(
        (weights[names["weight"]] == 1).all() and (weights[names["mean"]] == 0).all() for names in roles
    )
