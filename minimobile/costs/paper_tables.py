"""A network as its paper prints it: V1's Table 1 and V2's Table 2, read off the graph for one image size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minimobile.costs.profile import Cost, profile
from minimobile.networks import ssd
from minimobile.networks.graph import Graph
from minimobile.operations.operation import MapShape
from minimobile.operations.table import OPERATIONS

_STEPS = ("expand_1x1", "conv_3x3", "reduce_1x1")


@dataclass(frozen=True)
class BodyRow:
    """A row of "MobileNet Body Architecture" (arXiv:1704.04861, Table 1).

    `repeats` counts how often this row, with those that follow it up to the next `repeats`, comes in a row; it is None
    on the second line of such a group.
    """

    type_stride: str
    filter_shape: str
    input_size: str
    repeats: int | None = 1


@dataclass(frozen=True)
class StageRow:
    """A row of V2's architecture (arXiv:1801.04381, Table 2): n times an operator, the first with stride s.

    `t` is the expansion factor, `c` the output channels; `dilations` are those of the repetitions, in order.
    """

    input: str
    operator: str
    t: float | None
    c: int | None
    n: int
    s: int | None
    dilations: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class MapRow:
    """A map that a detector predicts from: its size, the layer that makes it, and what reads it.

    `anchors` counts those of one cell; `boxes` and `classes` are the channels of the two predictors.
    """

    input: str
    source: str
    predictors: str
    anchors: int
    boxes: int
    classes: int


def body_table(graph: Graph, image_size: int | Sequence[int]) -> tuple[BodyRow, ...]:
    """Return V1's Table 1 for a graph that is one chain of layers; equal pairs of rows are told once, as there.

    A detector's own layers have a table of theirs: `map_table`.
    """
    rows = [_body_row(layer) for layer in profile(graph, image_size).layers if _is_of_body(layer)]
    grouped: list[BodyRow] = []
    place = 0
    while place < len(rows):
        pair, repeats = rows[place : place + 2], 1
        while len(pair) == 2 and rows[place + 2 * repeats : place + 2 * repeats + 2] == pair:
            repeats += 1
        if repeats == 1:
            grouped.append(rows[place])
            place += 1
        else:
            first, second = pair
            grouped += [dataclasses.replace(first, repeats=repeats), dataclasses.replace(second, repeats=None)]
            place += 2 * repeats
    return tuple(grouped)


def stage_table(graph: Graph, image_size: int | Sequence[int]) -> tuple[StageRow, ...]:
    """Return V2's Table 2: neighbouring bottlenecks of one width are one row, and every other layer is one.

    A detector's own layers have a table of theirs: `map_table`.
    """
    layers = {layer.name: layer for layer in profile(graph, image_size).layers if _is_of_body(layer)}
    blocks = {name.removesuffix(".conv_3x3") for name in layers if name.endswith(".conv_3x3")}
    rows: list[StageRow] = []
    for name, layer in layers.items():
        block, _, step = name.rpartition(".")
        if name in blocks or (block in blocks and step in _STEPS[:2]):
            continue
        if block not in blocks or step != _STEPS[2]:
            rows.append(_stage_row(layer))
            continue
        row = _bottleneck_row(layers, block)
        last = rows[-1] if rows else None
        if last and (last.operator, last.t, last.c, row.s) == (row.operator, row.t, row.c, 1):
            rows[-1] = dataclasses.replace(last, n=last.n + 1, dilations=(*last.dilations, *row.dilations))
        else:
            rows.append(row)
    return tuple(rows)


def map_table(graph: Graph, image_size: int | Sequence[int]) -> tuple[MapRow, ...]:
    """Return a detector's maps in order (SSD's Figure 2); nothing for other networks."""
    layers = {layer.name: layer for layer in profile(graph, image_size).layers}
    sources = {node.name: node.inputs[0] for node in graph.nodes}
    rows = []
    for index in range(sum(name.startswith(f"{ssd.HEAD}boxes.") for name in graph.outputs)):
        boxes, classes = (layers[f"{ssd.HEAD}{kind}.{index}.projection"] for kind in ("boxes", "classes"))
        first = layers.get(f"{ssd.HEAD}boxes.{index}.depthwise", boxes)
        source = sources.get(f"{first.name}.convolution", sources[first.name])
        kernel = "x".join(map(str, (first.kernel_size or (1, 1))))
        kind = f"depthwise {kernel}, 1x1" if first is not boxes else kernel
        anchors = boxes.output_shape[0] // 4
        rows.append(
            MapRow(_show(first.input_shape), source, kind, anchors, boxes.output_shape[0], classes.output_shape[0])
        )
    return tuple(rows)


def paper_table(graph: Graph, image_size: int | Sequence[int]) -> dict[str, Any]:
    """Return the table of the network's own paper as plain values: {"table": its name, "rows": [{...}]}.

    A detector has "maps" besides, the rows of `map_table`.
    """
    is_second = any(node.name.startswith("conv_stem.conv_3x3") for node in graph.nodes)
    rows: Sequence[BodyRow | StageRow]
    rows = stage_table(graph, image_size) if is_second else body_table(graph, image_size)
    source = "MobileNet V2, Table 2" if is_second else "MobileNet V1, Table 1"
    found = {"table": source, "rows": [dataclasses.asdict(row) for row in rows]}
    maps = map_table(graph, image_size)
    return found | ({"maps": [dataclasses.asdict(row) for row in maps]} if maps else {})


def _is_of_body(layer: Cost) -> bool:
    return layer.is_computed and not layer.name.startswith(ssd.HEAD)


def _body_row(layer: Cost) -> BodyRow:
    shape, c = _show(layer.input_shape), layer.output_shape[0]
    kernel = " x ".join(map(str, layer.kernel_size or ()))
    rate = f" rate {layer.dilation}" if layer.dilation > 1 else ""
    if layer.is_pool:
        return BodyRow(f"Avg Pool / s{layer.stride}", f"Pool {kernel}", shape)
    if layer.kind == "Fully Connected":
        return BodyRow(f"FC / s{layer.stride}", f"{layer.input_shape[0]} x {c}", shape)
    if layer.operation == "depthwise_conv2d":
        return BodyRow(f"Conv dw / s{layer.stride}{rate}", f"{kernel} x {c} dw", shape)
    return BodyRow(f"Conv / s{layer.stride}{rate}", f"{kernel} x {layer.input_shape[0]} x {c}", shape)


def _stage_row(layer: Cost) -> StageRow:
    shape, c = _show(layer.input_shape), layer.output_shape[0]
    if layer.is_pool:
        is_global = OPERATIONS[layer.operation].sees_all
        window = "x".join(map(str, layer.kernel_size or ()))
        return StageRow(shape, f"avgpool {window}", None, None, 1, None if is_global else layer.stride)
    if layer.kind is None:
        return StageRow(shape, layer.operation.removesuffix("_bilinear"), None, c, 1, None)
    operator = "conv2d 1x1" if layer.operation == "pointwise_conv2d" else "conv2d"
    return StageRow(shape, operator, None, c, 1, None if layer.kind == "Fully Connected" else layer.stride)


def _bottleneck_row(layers: dict[str, Cost], block: str) -> StageRow:
    first = layers.get(f"{block}.expand_1x1", layers[f"{block}.conv_3x3"])
    middle, last = layers[f"{block}.conv_3x3"], layers[f"{block}.reduce_1x1"]
    t = middle.input_shape[0] / first.input_shape[0]
    return StageRow(
        _show(first.input_shape), "bottleneck", t, last.output_shape[0], 1, middle.stride, (middle.dilation,)
    )


def _show(shape: MapShape) -> str:
    channels, height, width = shape
    return f"{height} x {width} x {channels}"
