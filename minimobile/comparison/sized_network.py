"""A network as other runtimes are given it: a graph at one input shape, with plain weights and explicit padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.onnx.write import write_network
from minimobile.networks.graph import Graph, Node
from minimobile.operations.batch_norm import ROLES
from minimobile.operations.folding import fold_weights
from minimobile.operations.operation import MapShape, Weights
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.shapes import explicit_padding, infer_shapes, sliding_window
from minimobile.operations.table import CONVOLUTIONS

Shape: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class SizedNetwork:
    """A graph at one input shape (N, C, H, W). For comparisons of speed it is folded, with `compared_outputs` alone."""

    graph: Graph
    weights: Weights
    shape: Shape

    @property
    def shapes(self) -> dict[str, MapShape]:
        """Map sizes by node name."""
        return infer_shapes(self.graph, *self.shape[2:])

    def convolution(self, node: Node) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
        """Return weight (C_out, C_in / groups, K_h, K_w), bias and groups of a convolution node."""
        weight, bias = fold_weights(node, self.weights)
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(weight.astype(np.float32))
            groups = len(weight) if CONVOLUTIONS[node.op].is_by_channel else 1
            return stored.reshape(*weight.shape, *[1] * (4 - weight.ndim)), bias.astype(np.float32), groups

    def normalization(self, node: Node) -> list[NDArray[np.float32]]:
        """Return scale, shift, mean and variance of a batch norm that is not folded."""
        return [self.weights[node.weights[role]].astype(np.float32) for role in ROLES]

    def pads(self, node: Node, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the padding (top, left, bottom, right) of a convolution node."""
        return explicit_padding(sliding_window(node, height, width))


def compared_outputs(graph: Graph) -> tuple[str, ...]:
    """Return what is computed when speed is compared: all that a head predicts, of a network without one its map."""
    return graph.outputs[:1] if "pooler" in graph.outputs else graph.outputs


def fold(graph: Graph, weights: Weights, shape: Shape) -> SizedNetwork:
    """Return what is compared: the outputs that count, with batch norm folded."""
    return SizedNetwork(fold_batch_norm(keep_needed(graph, compared_outputs(graph))), weights, shape)


def write_onnx(network: SizedNetwork) -> bytes:
    """Return the network, with all outputs of its graph, as an ONNX model."""
    return write_network(network.graph, network.weights, network.shape)
