"""The size of every map for one size of image, and the window with which a node slides over its input."""

from __future__ import annotations

from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.operation import MapShape
from minimobile.operations.table import operation_of
from minimobile_kernels.geometry import Window


def infer_shapes(graph: Graph, height: int, width: int) -> dict[str, MapShape]:
    """Return (channels, height, width) of every node's output for one image of `height` x `width` pixels."""
    shapes: dict[str, MapShape] = {INPUT: (graph.input_channels, height, width)}
    for node in graph.nodes:
        operation = operation_of(node)
        operation.check(node)
        shapes[node.name] = operation.infer_shape(node, [shapes[name] for name in node.inputs], graph.shapes)
    return shapes


def sliding_window(node: Node, height: int, width: int) -> Window:
    """Return the window of a node over a `height` x `width` map; that of one pixel where it does not slide."""
    return operation_of(node).window(node, height, width)


def explicit_padding(slide: Window) -> tuple[int, int, int, int]:
    """Return what a window reads beyond the map, in pixels: top, left, bottom, right."""
    bottom, right = (
        max(0, (outputs - 1) * slide.stride + (kernel - 1) * slide.dilation + 1 - size - before)
        for outputs, kernel, size, before in (
            (slide.out_height, slide.kernel_height, slide.height, slide.pad_top),
            (slide.out_width, slide.kernel_width, slide.width, slide.pad_left),
        )
    )
    return slide.pad_top, slide.pad_left, bottom, right
