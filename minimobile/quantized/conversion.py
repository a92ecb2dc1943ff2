"""From a network trained for quantisation to its integers: what TensorFlow's converter makes of it, without it.

Source: Jacob et al. (arXiv 1712.05877), section 2; TensorFlow, `lite/toco` and its successor in MLIR, for uint8.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.fake_quantization import FakeQuantization, Ranges, add_fake_quantization
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_batch_norm, fuse_activations, keep_needed
from minimobile.operations.table import is_convolution, layout_weights, operation_of
from minimobile.quantized.assembly import as_stored, assemble
from minimobile.quantized.network import Network, Tensor
from minimobile.quantized.validation import check_network

_BYTES = np.dtype(np.uint8)


def quantize_graph(
    graph: Graph, weights: Weights, ranges: Ranges, size: tuple[int, int], pixels: FakeQuantization, where: str
) -> Network:
    """Return the network of uint8 that computes a graph's one output from one picture of `size` (height, width).

    `ranges` are those of training, for all of the graph's weights and layers, `pixels` is that of pixel values. Tensors
    are called as nodes. Weights become the steps of their grid, biases int32 steps of scale_x * scale_weight; a join
    has the widest of its inputs' ranges, and the others are brought to it first. Raises FormatError for what has no
    form in bytes.
    """
    needed = keep_needed(graph, graph.outputs)
    settled = fuse_activations(fold_batch_norm(needed))
    rounded = {node.name: node for node in fold_batch_norm(add_fake_quantization(needed, ranges)).nodes}
    return _Converter(settled, rounded, weights, ranges, size, where).run(pixels)


class _Converter:
    def __init__(
        self,
        graph: Graph,
        rounded: dict[str, Node],
        weights: Weights,
        ranges: Ranges,
        size: tuple[int, int],
        where: str,
    ) -> None:
        self.graph = graph
        self.kernels = {
            node.weights["weight"]: layout_weights(node, weights, np.float32)
            for node in rounded.values()
            if "weight_quantization" in node.attributes
        }
        self.ranges = ranges
        self.size = size
        self.where = where
        self.scales: dict[str, float] = {}  # by tensor, not rounded to float32: biases are in steps of these

    def run(self, pixels: FakeQuantization) -> Network:
        grids = {INPUT: self.read_range(INPUT, pixels)}
        for node in self.graph.nodes:
            grids[node.name] = self.choose_grid(node, grids)
        kernels = {node.name: self.round_kernel(node, grids) for node in self.graph.nodes if is_convolution(node)}
        network = assemble(self.graph, self.size, grids, kernels, self.where)
        check_network(network, self.where)
        return network

    def choose_grid(self, node: Node, grids: dict[str, Tensor]) -> Tensor:
        operation = operation_of(node)
        if operation.keeps_scale:
            return grids[node.inputs[0]]
        if operation.joins:
            return max((grids[name] for name in node.inputs), key=lambda tensor: tensor.scale)
        if node.name not in self.ranges:
            raise self.fault(node.name, "a range for its values", f"none for {node.op}")
        return self.read_range(node.name, self.ranges[node.name])

    def read_range(self, name: str, by: FakeQuantization) -> Tensor:
        """Return a tensor without shape with the scale and zero point of a range, in float64 as the converter's.

        The zero point is computed from the limit that is nearer to 0, where that is more exact.
        """
        if by.num_bits != 8 or by.minimum == by.maximum:
            found = f"{by.minimum:g} to {by.maximum:g} in {by.num_bits}"
            raise self.fault(name, "a range of more than one number, in 8 bits", found)
        least, most = int(by.narrow_range), 255
        scale = (by.maximum - by.minimum) / (most - least)
        from_minimum, from_maximum = least - by.minimum / scale, most - by.maximum / scale
        is_nearer = least - by.minimum / scale < most + by.maximum / scale
        self.scales[name] = scale
        zero = math.floor(min(max(from_minimum if is_nearer else from_maximum, least), most) + 0.5)
        return Tensor(name, (), _BYTES, np.array([scale], np.float32), np.array([zero], np.int64))

    def round_kernel(self, node: Node, grids: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a convolution."""
        name = node.weights["weight"]
        by = self.read_range(name, self.ranges[name])
        values, bias = self.kernels[name]
        steps = np.clip(np.rint(values / by.scale) + by.zero, self.ranges[name].narrow_range, 255)
        weight = as_stored(node.op, steps.astype(np.uint8))
        scale = self.scales[grids[node.inputs[0]].name] * self.scales[name]
        bias_name = f"{node.name}.bias"
        return dataclasses.replace(by, name=name, shape=weight.shape, values=weight), Tensor(
            bias_name, bias.shape, np.dtype(np.int32), np.array([scale], np.float32), np.zeros(1, np.int64),
            values=self.round_bias(node, bias.astype(np.float64) / scale),
        )  # fmt: skip

    def round_bias(self, node: Node, steps: NDArray[np.float64]) -> NDArray[np.int32]:
        """Round to the nearest, halves away from zero."""
        rounded = np.copysign(np.floor(np.abs(steps) + 0.5), steps)
        if not (np.abs(rounded) < 2**31).all():
            raise self.fault(node.name, "a bias of fewer than 2**31 steps", f"{np.abs(rounded).max():g}")
        return rounded.astype(np.int32)

    def fault(self, name: str, expected: str, found: str) -> FormatError:
        return FormatError(f"{self.where}: {name}: expected {expected}, found {found}")
