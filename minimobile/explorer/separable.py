"""Depthwise separable convolution beside the standard one for the same maps: what each costs, and takes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.timing import time_nodes
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.operation import MapShape

LARGEST = 400_000_000  # multiply-adds of a standard convolution that is timed: a tenth of a second
SECONDS = 0.005  # of measuring one, at least three runs
TIMED = "Both measured here, on one thread, by themselves."
NOT_TIMED = "Not timed: it would take too long."

Layer = dict[str, Any]


def compare_separable(layers: list[Layer], input_shape: MapShape, input_name: str) -> list[dict[str, Any]]:
    """Return the costs of each depthwise layer and the pointwise one that alone reads it, beside a standard one's.

    `layers` are as `describe_floats` gives them. Multiply-adds and parameters are those of kernels; times are of
    networks of these layers alone, with random weights.
    """
    shapes = {input_name: list(input_shape)} | {layer["name"]: layer["shape"] for layer in layers}
    pairs = []
    for layer in layers:
        readers = [other for other in layers if layer["name"] in other["inputs"]]
        if (
            _operation(layer) == "depthwise_conv2d"
            and len(readers) == 1
            and _operation(readers[0]) == "pointwise_conv2d"
        ):
            pairs.append(_compare(layer, readers[0], shapes[layer["inputs"][0]]))
    return pairs


def _operation(layer: Layer) -> str:
    operation: str = layer["nodes"][0]["op"]
    return operation


def _compare(depthwise: Layer, pointwise: Layer, shape: MapShape) -> dict[str, Any]:
    attributes = depthwise["nodes"][0]["attributes"]
    size, channels, (outputs, height, width) = attributes["kernel_size"], shape[0], pointwise["shape"]
    standard, separable = size**2 * channels * outputs, size**2 * channels + channels * outputs
    work = standard * height * width
    own = {name: attributes[name] for name in ("kernel_size", "stride", "dilation", "padding")}
    times: list[float | None] = [None, None]
    if work <= LARGEST:
        rng = np.random.default_rng(0)
        dense = Node("dense", "conv2d", (INPUT,), own, {"weight": "dense"})
        filtered = Node("filtered", "depthwise_conv2d", (INPUT,), own, {"weight": "filtered"})
        mixed = Node("mixed", "pointwise_conv2d", ("filtered",), {}, {"weight": "mixed"})
        weights = {
            "dense": (outputs, channels, size, size),
            "filtered": (channels, 1, size, size),
            "mixed": (outputs, channels, 1, 1),
        }
        pixels = rng.standard_normal((1, *shape), np.float32)
        times = [_time(nodes, weights, pixels, rng) for nodes in ((dense,), (filtered, mixed))]
    return {
        "depthwise": depthwise["name"],
        "pointwise": pointwise["name"],
        "kernel": size,
        "standard": {"multiplyAdds": work, "parameters": standard, "microseconds": times[0]},
        "separable": {
            "multiplyAdds": separable * height * width,
            "parameters": separable,
            "microseconds": times[1],
        },
        "timing": TIMED if work <= LARGEST else NOT_TIMED,
    }


def _time(
    nodes: tuple[Node, ...],
    shapes: Mapping[str, tuple[int, ...]],
    pixels: NDArray[np.float32],
    rng: np.random.Generator,
) -> float:
    """Return the microseconds of a run of these nodes alone. Shape: pixels (1, C, H, W)."""
    own = {name: shapes[name] for node in nodes for name in node.weights.values()}
    graph = Graph(nodes, pixels.shape[1], (nodes[-1].name,), own)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in own.items()}
    return sum(time_nodes(graph, weights, pixels, False, SECONDS).values())
