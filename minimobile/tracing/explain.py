"""Writes one output value of a layer out as its sum, term by term, in the order that the numeric contract fixes.

The arithmetic is that of `reference.py`, one value at a time; what comes out is what the engine has, to the bit.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.execution.runner import Runner
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.networks.passes import Weights, fold_batch_norm, keep_needed, layout_weights
from minimobile.networks.shapes import CONVOLUTIONS, MapShape, sliding_window
from minimobile.tracing.explanation import (
    Explanation,
    Position,
    Scalar,
    Stage,
    Term,
    Unfolded,
    count_ulps,
)
from minimobile_kernels import reference
from minimobile_kernels.geometry import Window, window

Array = NDArray[Any]
WrittenOut = tuple[tuple[Term, ...], tuple[Stage, ...]]


def explain(
    graph: Graph, weights: Weights, runner: Runner, pixel_values: Array, layer: str | int, position: Sequence[int]
) -> Explanation:
    """Write out one value of a layer, at `position` (row, column, channel). Shape: pixel_values (1, H, W, C)."""
    name = graph.resolve(layer)
    if len(pixel_values) != 1:
        raise InputError(f"pixel_values: expected one image to explain a value of, got {len(pixel_values)}")
    start, after = _find_start(graph, name)
    residuals = [node.inputs[0] for node in after if node.op == "add"]
    names = dict.fromkeys(read for read in (name, *start.inputs, *residuals) if read != INPUT)
    maps = {INPUT: pixel_values[0]}  # (H, W, C) each
    maps.update({read: y[0] for read, y in runner.run(pixel_values, tuple(names), "channels_last").items()})
    at = _check_position(position, name, maps[name].shape)

    source, (terms, stages) = _write_out(start, weights, maps, at)
    unfolded = _unfold(start, weights, maps[source], at, stages[-1].value) if "scale" in start.weights else None
    for node in after:
        value = _single(stages[-1].value)
        if node.op == "add":
            residual = maps[node.inputs[0]][at]
            stage = Stage(f"residual {node.inputs[0]}", residual, reference.add(_single(residual), value)[0])
        elif node.op == "fake_quantize":
            grid = reference.nudge_range(*node.attributes["quantization"])
            stage = Stage("rounded to steps of", grid.step, reference.fake_quantize(value, grid)[0])
        else:
            function = node.attributes["function"]
            stage = Stage(function, None, reference.activation(value, function)[0])
        stages = (*stages, stage)
    return Explanation(
        layer=name,
        operation=start.op,
        position=at,
        shape=_channels_first(maps[name]),
        source=source,
        source_shape=_channels_first(maps[source]),
        terms=terms,
        block=_block(start) if start.op in CONVOLUTIONS else len(terms),
        stages=stages,
        unfolded=unfolded,
        value=stages[-1].value,
        computed=maps[name][at],
    )


def _find_start(graph: Graph, name: str) -> tuple[Node, list[Node]]:
    """Return the node whose terms make up a value, batch norm folded into it, and what changes the value afterwards."""
    after: list[Node] = []
    while (node := graph.node(name)).op in ("activation", "add", "fake_quantize"):
        after.insert(0, node)
        name = node.inputs[-1]
    return fold_batch_norm(keep_needed(graph, (name,))).node(name), after


def _write_out(node: Node, weights: Weights, maps: dict[str, Array], at: Position) -> tuple[str, WrittenOut]:
    """Return the name of the map that is read, and terms and stages of a node that is no activation and no sum."""
    source = node.inputs[0]
    x = maps[source]
    if node.op in CONVOLUTIONS:
        return source, _convolve(node, weights, x, at)
    if node.op in ("average_pool2d", "global_average_pool2d"):
        precision = np.promote_types(x.dtype, node.attributes.get("precision", "float64"))
        return source, _average(x, sliding_window(node, *x.shape[:2]), at, precision)
    if node.op == "resize_bilinear":
        height, width = maps[node.inputs[1]].shape[:2]
        return source, _interpolate(x, height, width, node.attributes["align_corners"], at)
    assert node.op == "concatenate", node.op
    row, column, channel = at
    if channel >= x.shape[2]:
        source, channel = node.inputs[1], channel - x.shape[2]
    return source, _copy(maps[source], (row, column, channel))


def _convolve(node: Node, weights: Weights, x: Array, at: Position) -> WrittenOut:
    weight, bias = layout_weights(node, weights, x.dtype.type)
    channels: Sequence[int] = range(x.shape[2])
    if node.op == "depthwise_conv2d":
        weight, channels = weight[:, :, at[2]].ravel(), [at[2]]
    else:
        weight = weight[at[2]].ravel()
    height, width = x.shape[:2]
    is_pointwise = node.op == "pointwise_conv2d"
    slide = window(height, width, (1, 1), 1, 1, "VALID") if is_pointwise else sliding_window(node, height, width)
    reads = _list_reads(slide, at, channels)
    is_inside = [0 <= y < slide.height and 0 <= column < slide.width for _, (y, column, _) in reads]
    pixels = np.array([x[where] if inside else 0 for (_, where), inside in zip(reads, is_inside, strict=True)], x.dtype)
    running, stages = _sum_in_blocks(pixels, weight, np.array(is_inside), _block(node))
    with np.errstate(all="ignore"):
        products = pixels.astype(np.float64) * weight
    terms = tuple(
        Term(tap, where, pixel if inside else None, w, product if inside else None, so_far)
        for (tap, where), inside, pixel, w, product, so_far in zip(
            reads, is_inside, pixels, weight, products, running, strict=True
        )
    )
    b = bias[at[2]]
    return terms, (*stages, Stage("bias", b, reference.add(_single(stages[-1].value), _single(b))[0]))


def _unfold(node: Node, weights: Weights, x: Array, at: Position, folded: Scalar) -> Unfolded:
    """Return how a value would come about without folding: with the weights of the file, and batch norm by itself."""
    roles = {role: name for role, name in node.weights.items() if role in ("weight", "bias")}
    attributes = {name: value for name, value in node.attributes.items() if name != "weight_quantization"}
    terms, stages = _convolve(Node(node.name, node.op, node.inputs, attributes, roles), weights, x, at)
    scale, shift, mean, variance = (
        weights[node.weights[role]][at[2] : at[2] + 1] for role in ("scale", "shift", "mean", "variance")
    )
    convolved, epsilon = stages[-1].value, node.attributes["epsilon"]
    with np.errstate(all="ignore"):
        normalized = reference.batch_norm(_single(convolved), scale, shift, mean, variance, epsilon)[0]
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


def _average(x: Array, slide: Window, at: Position, precision: np.dtype[Any]) -> WrittenOut:
    reads = _list_reads(slide, at, [at[2]])
    with np.errstate(all="ignore"):
        running = np.cumsum([0.0, *(x[where] for _, where in reads)], dtype=precision)[1:]  # in order, from zero
        mean = (running[-1] / len(reads)).astype(x.dtype)
    terms = tuple(
        Term(tap, where, x[where], None, None, so_far)
        for (tap, where), so_far in zip(reads, running, strict=True)
    )  # fmt: skip
    total = Stage(f"sum in {precision}", None, running[-1])
    return terms, (total, Stage(f"divided, as {x.dtype}", precision.type(len(reads)), mean))


def _interpolate(x: Array, height: int, width: int, align_corners: bool, at: Position) -> WrittenOut:
    row, column, channel = at
    if x.shape[:2] == (1, 1):
        return _copy(x, (0, 0, channel))
    upper, lower, down = (points[row] for points in reference.interpolation_points(x.shape[0], height, align_corners))
    left, right, across = (
        points[column] for points in reference.interpolation_points(x.shape[1], width, align_corners)
    )
    terms: list[Term] = []
    with np.errstate(all="ignore"):
        for ky, y in enumerate((int(upper), int(lower))):
            first, second = x[y, int(left), channel], x[y, int(right), channel]
            near, far = np.float64(first) * (1 - across), np.float64(second) * across
            terms.append(Term((ky, 0), (y, int(left), channel), first, 1 - across, near, near))
            terms.append(Term((ky, 1), (y, int(right), channel), second, across, far, near + far))
        above, below = terms[1].running * (1 - down), terms[3].running * down
        value = (above + below).astype(x.dtype)
    return tuple(terms), (
        Stage("upper row, times", 1 - down, above),
        Stage("and lower row, times", down, above + below),
        Stage(f"as {x.dtype}", None, value),
    )


def _copy(x: Array, where: Position) -> WrittenOut:
    return (Term((0, 0), where, x[where], None, None, x[where]),), (Stage("copied", None, x[where]),)


def _list_reads(slide: Window, at: Position, channels: Sequence[int]) -> list[tuple[tuple[int, int], Position]]:
    """Return (tap, position read) of every term of a window, in the order ky, kx, ci; some lie outside the map."""
    return [
        ((ky, kx), (y, x, ci))
        for ky in range(slide.kernel_height)
        for y in [at[0] * slide.stride - slide.pad_top + ky * slide.dilation]
        for kx in range(slide.kernel_width)
        for x in [at[1] * slide.stride - slide.pad_left + kx * slide.dilation]
        for ci in channels
    ]


def _block(node: Node) -> int:
    """Return how many terms of a convolution make one chain."""
    return int(node.attributes.get("block", reference.BLOCK))


def _sum_in_blocks(x: Array, w: Array, is_inside: NDArray[np.bool_], size: int) -> tuple[Array, list[Stage]]:
    """Return the sum of each term's block so far, and one stage per block: its sum, and the total with it.

    Every block of `size` terms is a chain of its own, from zero. Shapes: x, w, is_inside (terms).
    """
    running = np.zeros_like(x)
    stages: list[Stage] = []
    for first in range(0, len(x), size):
        block = np.zeros(1, x.dtype)
        for index in range(first, min(first + size, len(x))):
            if is_inside[index]:
                block = reference.fma(x[index : index + 1], w[index : index + 1], block)
            running[index] = block[0]
        total = reference.add(_single(stages[-1].value), block) if stages else block
        stages.append(Stage(f"block {len(stages)}", block[0], total[0]))
    return running, stages


def _single(value: Scalar) -> Array:
    return np.array([value])


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
