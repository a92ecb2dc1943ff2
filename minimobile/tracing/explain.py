"""Writes one output value of a layer out as its sum, term by term, in the order that the numeric contract fixes.

The arithmetic is that of `reference.py`, one value at a time; what comes out is what the engine has, to the bit.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError, within_memory
from minimobile.execution.runner import Runner
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.folding import NORMALIZATION, is_folded
from minimobile.operations.operation import Maps, MapShape, Weights
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.table import operation_of
from minimobile.operations.written_out import Position, Scalar, as_array
from minimobile.tracing.explanation import Explanation, Unfolded, count_ulps
from minimobile_kernels import reference

Array = NDArray[Any]


@within_memory("pixel_values")
def explain(
    graph: Graph, weights: Weights, runner: Runner, pixel_values: Array, layer: str | int, position: Sequence[int]
) -> Explanation:
    """Write out one value of a layer, at `position` (row, column, channel). Shape: pixel_values (1, H, W, C)."""
    name = graph.resolve(layer)
    if len(pixel_values) != 1:
        raise InputError(f"pixel_values: expected one image to explain a value of, got {len(pixel_values)}")
    start, after = _find_start(graph, name)
    others = [read for node in after for read in node.inputs[:-1]]
    names = dict.fromkeys(read for read in (name, *start.inputs, *others) if read != INPUT)
    maps = {INPUT: pixel_values[0]}  # (H, W, C) each
    maps.update({read: y[0] for read, y in runner.run(pixel_values, tuple(names), "channels_last").items()})
    at = _check_position(position, name, maps[name].shape)

    source, terms, block, stages = operation_of(start).write_out(start, weights, maps, at)
    has_folded = "scale" in start.weights and is_folded(start)
    unfolded = _unfold(start, weights, maps, at, stages[-1].value) if has_folded else None
    for node in after:
        stages = (*stages, operation_of(node).stage(node, stages[-1].value, maps, at))
    return Explanation(
        layer=name,
        operation=start.op,
        position=at,
        shape=_channels_first(maps[name]),
        source=source,
        source_shape=_channels_first(maps[source]),
        terms=terms,
        block=block,
        stages=stages,
        unfolded=unfolded,
        value=stages[-1].value,
        computed=maps[name][at],
    )


def _find_start(graph: Graph, name: str) -> tuple[Node, list[Node]]:
    """Return the node whose terms make up a value, batch norm folded into it, and what changes the value afterwards."""
    after: list[Node] = []
    while operation_of(node := graph.node(name)).is_stage:
        after.insert(0, node)
        name = node.inputs[-1]
    return fold_batch_norm(keep_needed(graph, (name,))).node(name), after


def _unfold(node: Node, weights: Weights, maps: Maps, at: Position, folded: Scalar) -> Unfolded:
    """Return how a value would come about without folding: with the weights of the file, and batch norm by itself."""
    roles = {role: name for role, name in node.weights.items() if role in ("weight", "bias")}
    attributes = {name: value for name, value in node.attributes.items() if name != "weight_quantization"}
    trained = Node(node.name, node.op, node.inputs, attributes, roles)
    _, terms, _, stages = operation_of(trained).write_out(trained, weights, maps, at)
    scale, shift, mean, variance = (weights[node.weights[role]][at[2] : at[2] + 1] for role in NORMALIZATION)
    convolved, epsilon = stages[-1].value, node.attributes["epsilon"]
    with np.errstate(all="ignore"):
        normalized = reference.batch_norm(as_array(convolved), scale, shift, mean, variance, epsilon)[0]
    return Unfolded(
        terms=terms,
        stages=stages,
        convolved=convolved,
        mean=mean[0],
        scale=scale[0],
        variance=variance[0],
        epsilon=epsilon,
        shift=shift[0],
        normalized=normalized,
        folded=folded,
        ulps=int(count_ulps(normalized, folded)),
    )


def _check_position(position: Sequence[int], name: str, sizes: tuple[int, ...]) -> Position:
    height, width, channels = sizes
    expected = f"position: expected (row, column, channel) of {name}, below ({height}, {width}, {channels})"
    try:
        row, column, channel = (operator.index(index) for index in position)
    except (TypeError, ValueError):
        raise InputError(f"{expected}, got {position!r}") from None
    if not (0 <= row < height and 0 <= column < width and 0 <= channel < channels):
        raise InputError(f"{expected}, got ({row}, {column}, {channel})")
    return row, column, channel


def _channels_first(values: Array) -> MapShape:
    height, width, channels = values.shape
    return channels, height, width
