"""Receptive fields: which pixels of the picture a value of a layer depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minimobile.costs.profile import read_size
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.shapes import infer_shapes, sliding_window
from minimobile.operations.table import operation_of


class Reach(NamedTuple):
    """Along one axis: value i depends on the `size` pixels from `start + i * step` on, as far as there are pixels."""

    size: int
    step: int
    start: int


class ReceptiveField(NamedTuple):
    """Both axes of a layer's receptive field."""

    height: Reach
    width: Reach


def receptive_fields(graph: Graph, image_size: int | Sequence[int]) -> dict[str, ReceptiveField | None]:
    """Return {node: its receptive field}, None for the whole picture (beyond a global pooling).

    A window of `k` taps, stride `s`, dilation `d` and padding `p` before widens a field by (k - 1) * d steps, moves its
    start by -p steps, and then multiplies the step by s; where branches join, the field is their union. Source: Araujo,
    Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019.
    """
    shapes = infer_shapes(graph, *read_size(image_size))
    pixel = Reach(1, 1, 0)
    fields: dict[str, ReceptiveField | None] = {INPUT: ReceptiveField(pixel, pixel)}
    for node in graph.nodes:
        height, width = shapes[node.inputs[0]][1:]
        fields[node.name] = _widen(node, _join([fields[name] for name in node.inputs]), height, width)
    return fields


def _join(fields: list[ReceptiveField | None]) -> ReceptiveField | None:
    known = [field for field in fields if field is not None]
    if len(known) < len(fields):
        return None
    return ReceptiveField(*(_unite([field[axis] for field in known]) for axis in (0, 1)))


def _unite(reaches: list[Reach]) -> Reach:
    start = min(reach.start for reach in reaches)
    return Reach(max(reach.start + reach.size for reach in reaches) - start, reaches[0].step, start)


def _widen(node: Node, field: ReceptiveField | None, height: int, width: int) -> ReceptiveField | None:
    if field is None or operation_of(node).sees_all:
        return None
    slide = sliding_window(node, height, width)
    taps = ((slide.kernel_height, slide.pad_top), (slide.kernel_width, slide.pad_left))
    return ReceptiveField(
        *(
            Reach(
                reach.size + (kernel - 1) * slide.dilation * reach.step,
                reach.step * slide.stride,
                reach.start - before * reach.step,
            )
            for reach, (kernel, before) in zip(field, taps, strict=True)
        )
    )
