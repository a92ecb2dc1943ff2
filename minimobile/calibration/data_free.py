"""What batch norm's statistics tell of every map without a single picture: means, variances and ranges.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minimobile.calibration.folding import Doubles, FoldedNetwork
from minimobile.calibration.normal import clipped_moments
from minimobile.calibration.ranges import Range
from minimobile.calibration.sums import sum_in_order
from minimobile.errors import FormatError
from minimobile.networks.graph import INPUT, Node
from minimobile.operations.table import is_convolution, operation_of
from minimobile.quantized.arithmetic import ACTIVATIONS

DEVIATIONS = 6.0
"""How far from the mean a range reaches: beta + 6 gamma, section 5."""


class Moments(NamedTuple):
    """Mean and variance of every channel of a map, and the limits that its values keep. Shapes: (C)."""

    mean: Doubles
    variance: Doubles
    low: Doubles
    high: Doubles


def expect(network: FoldedNetwork, pixels: Moments, where: str) -> dict[str, Moments]:
    """Return what to expect of every node's values, by node.

    A convolution with batch norm has normal values, clipped by its activation; one without has the sums of its inputs',
    as if these were independent. A pool keeps mean and variance: its pixels are neighbours.
    """
    found = {INPUT: pixels}
    for node in network.graph.nodes:
        found[node.name] = _expect_node(network, node, [found[name] for name in node.inputs], where)
    return found


def batch_norm_range(moments: Moments) -> Range:
    """Return the range of a map: beta + 6 gamma of every channel, clipped as its activation clips."""
    return float(moments.low.min()), float(moments.high.max())


def _expect_node(network: FoldedNetwork, node: Node, inputs: list[Moments], where: str) -> Moments:
    if is_convolution(node):
        mean, deviation = _sums(network, node, inputs[0])
        return _clip(node, mean, deviation, where)
    operation = operation_of(node)
    if operation.is_sum:
        mean = inputs[0].mean + inputs[1].mean
        return _clip(node, mean, np.sqrt(inputs[0].variance + inputs[1].variance), where)
    if operation.joins:
        return Moments(*(np.concatenate(parts) for parts in zip(*inputs, strict=True)))
    return inputs[0]  # pools and resizes


def _sums(network: FoldedNetwork, node: Node, x: Moments) -> tuple[Doubles, Doubles]:
    """Return mean and deviation of a convolution's sums, before the activation."""
    normal = network.normals.get(node.name)
    if normal is not None:
        return normal.mean, normal.deviation
    weight, bias = (network.weights[node.weights[role]] for role in ("weight", "bias"))
    taps = weight.reshape(*weight.shape[:2], -1)
    means, variances = (x.mean[:, None], x.variance[:, None]) if weight.shape[1] == 1 else (x.mean, x.variance)
    return sum_in_order(sum_in_order(taps) * means) + bias, np.sqrt(sum_in_order(sum_in_order(taps**2) * variances))


def _clip(node: Node, mean: Doubles, deviation: Doubles, where: str) -> Moments:
    function = node.attributes.get("activation", "linear")
    if function not in ACTIVATIONS:
        raise FormatError(f"{where}: {node.name}: expected relu6, relu or no activation, found {function}")
    least, most = ACTIVATIONS[function]
    low, high = -np.inf if least is None else least, np.inf if most is None else most
    reach = DEVIATIONS * deviation
    return Moments(
        *clipped_moments(mean, deviation, low, high),
        np.clip(mean - reach, low, high),
        np.clip(mean + reach, low, high),
    )
