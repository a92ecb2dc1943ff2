"""The size of every map for one size of image, and the window with which a node slides over its input."""

from __future__ import annotations

from minimobile.networks.graph import INPUT, Graph, Node
from minimobile_kernels.geometry import Window, window

MapShape = tuple[int, int, int]  # channels, height, width
CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "pointwise_conv2d")


def infer_shapes(graph: Graph, height: int, width: int) -> dict[str, MapShape]:
    """Return (channels, height, width) of every node's output for one image of `height` x `width` pixels."""
    shapes: dict[str, MapShape] = {INPUT: (graph.input_channels, height, width)}
    for node in graph.nodes:
        shapes[node.name] = _infer_shape(graph, node, [shapes[name] for name in node.inputs])
    return shapes


def sliding_window(node: Node, height: int, width: int) -> Window:
    """Return the window of a convolution or pooling node over a `height` x `width` map.

    Pooling takes no padding, and its window is never larger than the map; the global pool's is the map itself.
    """
    attributes = node.attributes
    if node.op == "global_average_pool2d":
        return window(height, width, (height, width), 1, 1, "VALID")
    size = attributes["kernel_size"]
    if node.op == "average_pool2d":
        return window(height, width, (min(size, height), min(size, width)), attributes["stride"], 1, "VALID")
    return window(height, width, (size, size), attributes["stride"], attributes["dilation"], attributes["padding"])


def _infer_shape(graph: Graph, node: Node, inputs: list[MapShape]) -> MapShape:
    channels, height, width = inputs[0]
    if node.op == "concatenate":
        return sum(shape[0] for shape in inputs), height, width
    if node.op == "resize_bilinear":
        return channels, inputs[1][1], inputs[1][2]
    if node.op in ("conv2d", "pointwise_conv2d"):
        channels = graph.shapes[node.weights["weight"]][0]
    if node.op in ("conv2d", "depthwise_conv2d", "average_pool2d", "global_average_pool2d"):
        slide = sliding_window(node, height, width)
        height, width = slide.out_height, slide.out_width
    return channels, height, width
