"""The weights of all convolutions in one array, folded, in the order in which the kernels read them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.arena import aligned_floats
from minimobile.networks.graph import Node
from minimobile.operations.operation import Weights
from minimobile.operations.table import CONVOLUTIONS, is_convolution
from minimobile_kernels.host import LANES
from minimobile_kernels.step import PANEL_VECTORS


@dataclass(frozen=True)
class PackedWeights:
    """All weights of a graph in one array, and where each node's begin."""

    values: NDArray[np.float32]
    offsets: Mapping[str, int]  # by `weight_key`
    finite: frozenset[str]  # the keys of those without infinities and NaN


def padded(channels: int) -> int:
    """Return the channels of a map in the arena: whole vectors."""
    return -(-channels // LANES) * LANES


def weight_key(node: Node) -> str:
    """Return the name under which a convolution's packed weights are kept: folded and plain ones differ."""
    return ("folded " if "scale" in node.weights else "plain ") + node.weights["weight"]


def pack_weights(nodes: Sequence[Node], weights: Weights) -> PackedWeights:
    """Fold and pack the weights of all convolutions among `nodes`.

    Dense and pointwise: panels of `PANEL_VECTORS` vectors of output channels, each [terms + 2][channels], the sums'
    factors and the bias last; the factor is 1 where batch norm is in the weights, which changes no bit of a sum.
    Depthwise: one vector of channels after the other, each [K_h*K_w + 2][LANES], likewise.
    """
    nodes_by_key: dict[str, Node] = {}
    for node in filter(is_convolution, nodes):
        nodes_by_key.setdefault(weight_key(node), node)
    sizes = [_packed_size(weights[node.weights["weight"]].shape) for node in nodes_by_key.values()]
    ends = list(itertools.accumulate(sizes, initial=0))
    offsets = dict(zip(nodes_by_key, ends, strict=False))
    packed = aligned_floats(ends[-1])
    finite = set()
    for (key, node), size in zip(nodes_by_key.items(), sizes, strict=True):
        place = packed[offsets[key] : offsets[key] + size]
        _pack(node, weights, place)
        if np.isfinite(place).all():
            finite.add(key)
    return PackedWeights(packed, offsets, frozenset(finite))


def _packed_size(shape: tuple[int, ...]) -> int:
    """Return how many floats a weight (C_out, C_in / groups, K_h, K_w) takes, with factors, bias, and whole vectors."""
    return (math.prod(shape[1:]) + 2) * padded(shape[0])


def _pack(node: Node, weights: Weights, place: NDArray[np.float32]) -> None:
    """Write a convolution's weights to where they are read, (`_packed_size`): whole panels, and what is left over."""
    operation = CONVOLUTIONS[node.op]
    weight, bias, factor = operation.layout_scaled(node, weights, np.float32)
    if operation.is_by_channel:
        rows, panel = weight.reshape(-1, weight.shape[2]), LANES  # (K_h*K_w, C)
    else:
        rows, panel = weight.reshape(weight.shape[0], -1).T, PANEL_VECTORS * LANES  # (terms, C_out)
    terms, channels = rows.shape
    factor = np.ones(channels, np.float32) if factor is None else factor
    whole = channels // panel * panel
    for first, last, width in ((0, whole, panel), (whole, channels, padded(channels - whole))):
        if first == last:
            continue
        count = min(last - first, width)  # of channels in a panel
        end = first + (last - first) // count * width
        panels = place[(terms + 2) * first : (terms + 2) * end].reshape(-1, terms + 2, width)
        panels[..., count:] = 0
        panels[:, :-2, :count] = rows[:, first:last].reshape(terms, -1, count).swapaxes(0, 1)
        panels[:, -2, :count] = factor[first:last].reshape(-1, count)
        panels[:, -1, :count] = bias[first:last].reshape(-1, count)
