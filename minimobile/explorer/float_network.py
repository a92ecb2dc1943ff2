"""A network of floats as the page has it: layers, nodes, weights, what they cost, and the engine's checksums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.costs.layer_table import name_operation
from minimobile.costs.profile import profile
from minimobile.explorer.payload import Payload, find_checksum
from minimobile.explorer.separable import compare_separable
from minimobile.models.base_model import MobileNetModel
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.shapes import infer_shapes
from minimobile.operations.table import CONVOLUTIONS, layout_weights, operation_of
from minimobile.tracing.trace import gather_layers
from minimobile_kernels.reference import nudge_range

Weights = Mapping[str, NDArray[Any]]
FROM_KERNEL_LAYOUT = {"conv2d": (0, 3, 1, 2), "depthwise_conv2d": (2, 0, 1)}  # to output, input, ky, kx
PLAIN = ("kernel_size", "stride", "dilation", "padding", "function", "epsilon", "align_corners", "precision",
         "folds_batch_norm")  # fmt: skip


def describe_floats(model: MobileNetModel, pixel_values: NDArray[np.float32], payload: Payload) -> dict[str, Any]:
    """Return {"arithmetic", "input", "layers", "outputs", "weights"} for JSON, the arrays being added to the payload.

    The page computes every layer from `pixel_values` (1, C, H, W) and the weights of the file, and compares the
    checksum of what it finds with that of the engine's values. Times are those of `trace`.
    """
    graph = fold_batch_norm(keep_needed(model.graph, model.graph.outputs))
    gathered = gather_layers(graph)
    shapes = infer_shapes(graph, *pixel_values.shape[2:])
    traced = {row.name: row for row in model.trace(pixel_values).layers}
    values = model.features(pixel_values, list(gathered), data_format="channels_first")
    costs = {cost.name: cost for cost in profile(model.graph, pixel_values.shape[2:]).layers}
    weights = _WeightTable(model.state_dict(), payload)
    layers = []
    for name, nodes in gathered.items():
        row, cost = traced[name], costs[name]
        layers.append(
            {
                "name": name,
                "inputs": list(nodes[0].inputs),
                "nodes": [_describe_node(node, weights) for node in nodes],
                "shape": shapes[name],
                "kind": name_operation(cost),
                "block": find_block(name, graph),
                "parameters": cost.parameters,
                "multiplyAdds": cost.multiply_adds,
                "microseconds": row.microseconds,
                "step": row.step,
                "checksum": find_checksum(_channels_last(values[name])),
            }
        )
    pixels = _channels_last(pixel_values)
    return {
        "arithmetic": "float32",
        "input": {"name": INPUT, "shape": list(pixel_values.shape[1:]), "values": payload.add(pixels)},
        "layers": layers,
        "separable": compare_separable(layers, shapes[INPUT], INPUT),
        "outputs": list(graph.outputs),
        "weights": weights.places,
    }


def find_block(name: str, graph: Graph) -> str:
    """Return the block of the paper that a layer belongs to: "layer.3" of `layer.3.expand_1x1`, in V1 a pair of layers.

    In V1 a depthwise layer and the pointwise one after it are one block.
    """
    parts = name.split(".")
    if parts[0] == "layer" and f"{parts[0]}.{parts[1]}" == name and not graph.has("add"):
        first = int(parts[1]) // 2 * 2
        return f"layer.{first}, {first + 1}"
    if parts[0] == "layer":
        return ".".join(parts[:2])
    return parts[0] if parts[0] in ("conv_stem", "segmentation_head") else ".".join(parts[:3])


class _WeightTable:
    """The weights that are needed, by number: each is in the payload once, as it is stored."""

    def __init__(self, weights: Weights, payload: Payload) -> None:
        self.places: list[dict[str, Any]] = []
        self.weights = weights
        self._payload = payload
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        if name not in self._numbers:
            values = self.weights[name].astype(np.float32)
            self._numbers[name] = self.add(
                values.reshape(*values.shape, *[1] * (4 - values.ndim)) if values.ndim > 1 else values
            )
        return self._numbers[name]

    def add(self, values: NDArray[Any]) -> int:
        self.places.append(self._payload.add(values))
        return len(self.places) - 1


def _describe_node(node: Node, weights: _WeightTable) -> dict[str, Any]:
    attributes = {name: node.attributes[name] for name in PLAIN if name in node.attributes}
    roles = {role: weights.number(name) for role, name in node.weights.items() if role != "weight"}
    if operation_of(node).is_convolution:
        attributes["block"] = CONVOLUTIONS[node.op].block(node)
        if "weight_quantization" in node.attributes:
            # Folded and rounded as its training did it: the page gets what comes out, with nothing left to fold.
            weight, bias = layout_weights(node, weights.weights, np.float32)
            weight = weight[..., None, None] if weight.ndim == 2 else weight.transpose(FROM_KERNEL_LAYOUT[node.op])
            if weight.ndim == 3:
                weight = weight[:, None]
            roles = {"weight": weights.add(weight), "bias": weights.add(bias)}
        else:
            roles["weight"] = weights.number(node.weights["weight"])
    if "quantization" in node.attributes:
        grid = nudge_range(*node.attributes["quantization"])
        attributes["grid"] = {name: float(value) for name, value in grid._asdict().items()}
    return {"name": node.name, "op": node.op, "attributes": attributes, "weights": roles}


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """Return a map (1, C, H, W) or (1, C) as (H, W, C)."""
    plain = values[0]
    return plain[None, None] if plain.ndim == 1 else np.ascontiguousarray(plain.transpose(1, 2, 0))
