"""Sums, products, limits and batch norm in ONNX graphs: of two maps, or of a map and a constant."""

from __future__ import annotations

import math

import numpy as np

from minimobile.formats.matching.network import PICTURE
from minimobile.formats.matching.translation import join_to_convolution, put_batch_norm
from minimobile.formats.onnx.layouts import ModelTranslation, per_channel
from minimobile.formats.onnx.model import Node

BOUNDS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


def translate_arithmetic(translation: ModelTranslation, node: Node) -> None:
    """Translate Add, Sum, Sub, Mul and Div."""
    if len(node.inputs) != 2:
        return
    flows, values = translation.flows, translation.values
    left, right = (translation.find_origin(tensor) for tensor in node.inputs)
    if node.op in ("Add", "Sum") and left in flows and right in flows:
        _add_maps(translation, node, left, right)
        return
    if left in values and node.op not in ("Sub", "Div"):
        left, right = right, left
    if right not in values or left not in flows:
        return
    layout = translation.layouts.get(left, "")
    number = per_channel(translation, node, right, layout)
    one, nothing = np.ones_like(number), np.zeros_like(number)
    with np.errstate(all="ignore"):  # whether the result is finite is checked later
        factor, summand = {
            "Mul": lambda: (number, nothing),
            "Div": lambda: (1 / number, nothing),
            "Sub": lambda: (one, -number),
        }.get(node.op, lambda: (one, number))()
    flow = flows[left]
    if flow == PICTURE or translation.layers[flow].op == "rescale":
        translation.add_layer(node, "rescale", flow, layout, scale=factor, offset=summand)
        return
    if (factor == 1).all() and not summand.any():
        translation.pass_on(node, flow, layout)
        return
    is_sum = node.op not in ("Mul", "Div")
    join_to_convolution(translation, node, flow, factor, summand, right if is_sum else None)
    translation.layouts[node.name] = layout


def _add_maps(translation: ModelTranslation, node: Node, left: str, right: str) -> None:
    layout = translation.layouts.get(left, "")
    if translation.layouts.get(right) != layout:
        raise translation.refuse(node, "two maps of one layout", "others")
    translation.add(node, "add", (translation.flows[left], translation.flows[right]))
    translation.layouts[node.name] = layout


def translate_batch_norm(translation: ModelTranslation, node: Node) -> None:
    """Translate BatchNormalization for inference."""
    flow = translation.flow(node)
    if flow is None:
        return
    if node.integer("training_mode", 0) or not node.integer("spatial", 1):
        raise translation.refuse(node, "batch norm for inference, one number per channel", "another")
    layout = translation.layout(node)
    if layout[1:2] != "C":
        raise translation.refuse(node, "channels as the second axis of its input", layout or "another")
    roles = dict(zip(("weight", "bias", "mean", "variance"), node.inputs[1:], strict=False))
    put_batch_norm(translation, node, flow, roles, node.number("epsilon", 1e-5))
    translation.layouts[node.name] = layout


def translate_limits(translation: ModelTranslation, node: Node) -> None:
    """Translate Relu, Clip, Min and Max: alone or one after the other, to relu or relu6."""
    flow = translation.flow(node)
    if flow is None and node.op in ("Min", "Max") and len(node.inputs) == 2:
        flow = translation.flows.get(node.inputs[1])  # the constant first
    if flow is None:
        return
    low, high = _read_limits(translation, node)
    layer = translation.layers.get(flow)
    tensor = next(name for name in node.inputs if name in translation.flows)
    layout = translation.layouts[tensor]
    is_alone = layer is not None and "bounds" in layer.attributes and translation.is_read_once(layer.tensor)
    if layer is not None and is_alone:
        before = layer.attributes["bounds"]
        low, high = min(max(before[0], low), high), max(min(before[1], high), low)
        sources, name = layer.inputs, layer.name
    else:
        sources, name = (flow,), node.name
    function = next((word for word, bounds in BOUNDS.items() if bounds == (low, high)), f"limits {low:g} and {high:g}")
    translation.add(node, "activation", sources, function=function, bounds=(low, high))
    if name != node.name:
        del translation.layers[name]
    translation.layouts[node.name] = layout


def _read_limits(translation: ModelTranslation, node: Node) -> tuple[float, float]:
    if node.op == "Relu":
        return BOUNDS["relu"]
    if node.op in ("Min", "Max"):
        constants = [translation.values[name] for name in node.inputs if name in translation.values]
        if len(node.inputs) != 2 or len(constants) != 1 or constants[0].size != 1:
            raise translation.refuse(node, "a map and a constant of one number", "others")
        limit = float(constants[0].item())
        return (-math.inf, limit) if node.op == "Min" else (limit, math.inf)
    limits = []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        if index >= len(node.inputs) or not node.inputs[index]:
            limits.append(node.number(name, default))
            continue
        values = translation.constant(node, index)
        if values is None or values.size != 1:
            raise translation.refuse(node, f"a constant of one number as its {name}", "another")
        limits.append(float(values.item()))
    return limits[0], limits[1]
