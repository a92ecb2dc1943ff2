"""Our own graphs spelled out as a foreign file has them: layers under meaningless names, in many dialects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.shapes import infer_shapes
from minimobile.operations.table import layout_weights
from minimobile_kernels.geometry import pad_amounts

Weights = dict[str, NDArray[Any]]


def random_weights(graph: Graph, seed: int = 0) -> Weights:
    """Weights whose batch norms do something, and whose values stay within reach of relu6."""
    random = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in graph.shapes.items():
        role = name.rpartition(".")[2]
        if role == "running_var" or name.endswith("normalization.weight"):
            values = random.uniform(0.5, 1.5, shape)
        elif role in ("bias", "running_mean"):
            values = random.normal(0, 0.3, shape)
        else:
            values = random.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape)
        weights[name] = values.astype(np.float32)
    return weights


def spell(
    graph: Graph,
    weights: Mapping[str, NDArray[Any]],
    *,
    folded: bool = False,
    biased: bool = False,
    dense: bool = False,
    pads: str | None = None,
    blocks: bool = False,
    tail: tuple[str, ...] = ("softmax",),
    size: tuple[int, int] = (32, 32),
) -> list[Layer]:
    """Return the layers of a graph.

    `folded`: no batch norm. `biased`: convolutions with a bias before batch norm. `dense`: the classifier is one.
    `pads`: None, or "strided" or "all": SAME as layers "pad" of their own. `blocks`: dilations as space_to_batch.
    `tail`: what comes after the logits. `size`: of the picture, for pads and blocks.
    """
    graph = keep_needed(graph, graph.outputs)
    if folded:
        graph = fold_batch_norm(graph)
    shapes = infer_shapes(graph, *size)
    layers: list[Layer] = []
    names = {INPUT: PICTURE}

    def add(op: str, inputs: tuple[str, ...], arrays: Any = None, **attributes: Any) -> str:
        name = f"op_{len(layers)}"
        layers.append(Layer(name, op, inputs, arrays or {}, attributes, tensor=f"{name}:0"))
        return name

    def add_convolution(node: Node, x: str, arrays: Weights) -> str:
        if node.name == "classifier" and dense:
            x = add("reshape", (x,))
            return add("dense", (x,), arrays)
        arrays = {**arrays, "weight": arrays["weight"].reshape(*arrays["weight"].shape[:2], *_kernel(node))}
        if node.op == "pointwise_conv2d":
            return add("conv2d", (x,), arrays, stride=1, dilation=1, padding="SAME")
        stride, dilation, padding = (node.attributes[name] for name in ("stride", "dilation", "padding"))
        height, width = shapes[node.inputs[0]][1:]
        amounts = tuple(
            pad_amounts(side, 3, stride, dilation, padding if isinstance(padding, str) else padding[axis])
            for axis, side in enumerate((height, width))
        )
        if blocks and dilation > 1:
            extra = tuple(-(side + sum(pair)) % dilation for side, pair in zip((height, width), amounts, strict=True))
            if pads == "all":
                x = add("pad", (x,), padding=amounts)
                amounts = ((0, 0), (0, 0))
            padded = tuple((pair[0], pair[1] + more) for pair, more in zip(amounts, extra, strict=True))
            x = add("space_to_batch", (x,), block=(dilation, dilation), padding=padded)
            x = add(node.op, (x,), arrays, stride=1, dilation=1, padding="VALID")
            return add("batch_to_space", (x,), block=(dilation, dilation), crop=tuple((0, more) for more in extra))
        if pads == "all" or (pads == "strided" and stride == 2):
            x = add("pad", (x,), padding=amounts)
            padding = "VALID"
        return add(node.op, (x,), arrays, stride=stride, dilation=dilation, padding=padding)

    for node in graph.nodes:
        inputs = tuple(names[name] for name in node.inputs)
        own = {role: weights[name] for role, name in node.weights.items()}
        if "scale" in own:
            weight, bias = layout_weights(node, weights, np.float32)
            own = {"weight": _to_pytorch(node, weight), "bias": bias}
            names[node.name] = add_convolution(node, inputs[0], own)
        elif "weight" in own and node.op != "batch_norm":
            if biased and node.name.endswith(".convolution"):
                own["bias"] = np.full(own["weight"].shape[0], 0.25, np.float32)
            names[node.name] = add_convolution(node, inputs[0], own)
        elif node.op == "batch_norm":
            if biased:
                own["mean"] = own["mean"] + np.float32(0.25)
            names[node.name] = add("batch_norm", inputs, own, epsilon=np.float32(node.attributes["epsilon"]))
        elif node.op in ("average_pool2d", "global_average_pool2d"):
            side = node.attributes.get("kernel_size")
            kernel = None if side is None else (side, side)
            names[node.name] = add(
                "average_pool2d", inputs, kernel_size=kernel, stride=node.attributes.get("stride", 1), padding="VALID"
            )
        elif node.op == "resize_bilinear":
            target = shapes[node.name][1:]
            names[node.name] = add("resize_bilinear", inputs[:1], size=target, align_corners=True)
        else:
            names[node.name] = add(node.op, inputs, None, **node.attributes)
    x = names[graph.outputs[-1]]
    for op in tail:
        x = add("activation", (x,), function=op) if op in ("softmax", "sigmoid") else add(op, (x,))
    return layers


def replace(layers: list[Layer], name: str, **changes: Any) -> list[Layer]:
    """Return the layers with one of them changed; `attributes` are added to its own."""
    (layer,) = (layer for layer in layers if layer.name == name)
    if "attributes" in changes:
        changes["attributes"] = {**layer.attributes, **changes["attributes"]}
    return [dataclasses.replace(layer, **changes) if layer.name == name else layer for layer in layers]


def _kernel(node: Node) -> tuple[int, int]:
    return (1, 1) if node.op == "pointwise_conv2d" else (3, 3)


def _to_pytorch(node: Node, weight: NDArray[Any]) -> NDArray[Any]:
    if node.op == "depthwise_conv2d":
        return weight.transpose(2, 0, 1)[:, None]
    return weight[:, :, None, None] if weight.ndim == 2 else weight.transpose(0, 3, 1, 2)
