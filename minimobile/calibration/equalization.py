"""Cross-layer equalisation: channels whose weights need a large scale are made as large as the others'.

Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from minimobile.calibration.folding import Doubles, FoldedNetwork, Normal
from minimobile.networks.graph import Node
from minimobile.operations.table import CONVOLUTIONS, is_convolution

CAP = 6.0
_SWEEPS = 20
_WIDEST = 2.0**6
"""Of all that a channel is widened or narrowed by: one that is nearly dead would else have a bias beyond any scale."""


def find_pairs(network: FoldedNetwork) -> Iterator[tuple[Node, Node]]:
    """Yield convolutions of which the second alone reads the first's values, in order."""
    named = {node.name: node for node in network.graph.nodes}
    readers = Counter([name for node in network.graph.nodes for name in node.inputs] + list(network.graph.outputs))
    for second in network.graph.nodes:
        first = named.get(second.inputs[0])
        if first is not None and is_convolution(first) and is_convolution(second) and readers[first.name] == 1:
            yield first, second


def equalize(network: FoldedNetwork, limits: Mapping[str, Doubles]) -> FoldedNetwork:
    """Return the network in which the weights before and after each channel reach equally far.

    Channel i of a layer is divided by s_i = sqrt(r1_i / r2_i), r1 and r2 being the largest weights that make it and
    that read it, and the weights that read it are multiplied by s_i: with relu the network's function is the same. With
    relu6 it is only where the cap is not at work: a channel that reaches 6 stays as it is, and the others (`limits`:
    the largest value of each channel, by node) may be widened to 6 and no further. Repeated until all pairs agree.
    """
    weights = {name: values.copy() for name, values in network.weights.items()}
    totals = {first.name: np.ones(len(limits[first.name])) for first, _ in find_pairs(network)}
    for _ in range(_SWEEPS):
        for first, second in find_pairs(network):
            wanted = _choose_scales(first, second, weights, limits[first.name] / totals[first.name])
            scales = np.clip(wanted, 1 / _WIDEST / totals[first.name], _WIDEST / totals[first.name])
            _divide_outputs(weights, first, scales)
            _multiply_inputs(weights, second, scales)
            totals[first.name] = totals[first.name] * scales
    normals = dict(network.normals)
    for name, total in totals.items():
        if name in normals:
            normals[name] = Normal(normals[name].mean / total, normals[name].deviation / total)
    return FoldedNetwork(network.graph, weights, normals)


def _choose_scales(first: Node, second: Node, weights: Mapping[str, Doubles], limits: Doubles) -> Doubles:
    before, after = (weights[node.weights["weight"]] for node in (first, second))
    reach_before = np.abs(before).reshape(len(before), -1).max(1)
    by_input = after if CONVOLUTIONS[second.op].is_by_channel else after.swapaxes(0, 1)
    reach_after = np.abs(by_input).reshape(len(by_input), -1).max(1)
    function = first.attributes.get("activation", "linear")
    is_alive = (reach_before > 0) & (reach_after > 0) & ((limits > 0) | (function == "linear"))
    ratio = np.where(is_alive, reach_before, 1.0) / np.where(is_alive, reach_after, 1.0)
    scales = np.sqrt(ratio)
    if function == "relu6":
        scales = np.where(limits < CAP, np.maximum(scales, limits / CAP), 1.0)
    return scales


def _divide_outputs(weights: dict[str, Doubles], node: Node, scales: Doubles) -> None:
    weight, bias = (node.weights[role] for role in ("weight", "bias"))
    weights[weight] = weights[weight] / scales.reshape(-1, *[1] * (weights[weight].ndim - 1))
    weights[bias] = weights[bias] / scales


def _multiply_inputs(weights: dict[str, Doubles], node: Node, scales: Doubles) -> None:
    name = node.weights["weight"]
    axis = 0 if CONVOLUTIONS[node.op].is_by_channel else 1
    shape = [1] * weights[name].ndim
    shape[axis] = -1
    weights[name] = weights[name] * scales.reshape(shape)
