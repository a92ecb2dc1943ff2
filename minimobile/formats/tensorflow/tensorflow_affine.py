"""Sums and products in a frozen graph: residuals, batch norm written out, and the bias of a convolution."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from minimobile.formats.matching.translation import join_to_convolution, put_batch_norm
from minimobile.formats.tensorflow.graph_def import GraphNode
from minimobile.formats.tensorflow.tensorflow_layers import GraphTranslation, order_weight

SUMS = ("Add", "AddV2")
ARITHMETIC = (*SUMS, "Sub", "Mul", "RealDiv")


def translate_arithmetic(translation: GraphTranslation, node: GraphNode) -> None:
    """Translate sums, differences, products and quotients: of two maps, or of a map and a constant."""
    if len(node.inputs) != 2:
        return
    flows, constants = translation.flows, translation.constants.values
    left, right = (translation.constants.find_origin(tensor) for tensor in node.inputs)
    is_sum = node.op in SUMS
    if is_sum and left in flows and right in flows:
        translation.add(node, "add", (flows[left], flows[right]))
        return
    if left in constants and (is_sum or node.op == "Mul"):
        left, right = right, left
    if right not in constants:
        return
    sign = -1 if node.op == "Sub" else 1
    if left in translation.scaled:
        flow, scale = translation.scaled[left]
        _add_affine(translation, node, flow, scale, right, sign)
    elif left in flows and node.op == "Mul" and _is_followed_by_sum(translation, node):
        translation.scaled[node.name] = flows[left], right
    elif left in flows and node.op in ("Mul", "RealDiv"):
        _add_affine(translation, node, flows[left], right, None, sign)
    elif left in flows:
        add_bias(translation, node, flows[left], right, sign)


def translate_sum(translation: GraphTranslation, node: GraphNode) -> None:
    """Translate AddN of two maps."""
    if len(node.inputs) == 2 and all(tensor in translation.flows for tensor in node.inputs):
        translation.add(node, "add", [translation.flows[tensor] for tensor in node.inputs])


def add_bias(translation: GraphTranslation, node: GraphNode, flow: str, offset: str, sign: int = 1) -> None:
    """Add `x + sign * offset`, a constant tensor."""
    _add_affine(translation, node, flow, None, offset, sign)


def _is_followed_by_sum(translation: GraphTranslation, node: GraphNode) -> bool:
    """Return whether the only reader of a product adds a constant to it or takes one off."""
    readers = translation.readers.get(node.name, [])
    if len(readers) != 1 or len(readers[0].inputs) != 2:
        return False
    (reader,) = readers
    places = [index for index in (0, 1) if reader.inputs[index] in translation.constants.values]
    return (places == [0] and reader.op in SUMS) or (places == [1] and reader.op in (*SUMS, "Sub"))


def _add_affine(
    translation: GraphTranslation, node: GraphNode, flow: str, scale: str | None, offset: str | None, sign: int
) -> None:
    """Add `x * scale + sign * offset` as batch norm, if it is written as one, or as part of the convolution before."""
    constants = translation.constants
    if scale is None and offset is not None and sign == 1:
        scale = _unfold(translation, flow, offset)
    if scale is not None and offset is not None and sign == 1:
        found = constants.find_batch_norm(scale, offset)
        if found is not None:
            roles = {"weight": found.weight, "bias": found.bias, "mean": found.mean, "variance": found.variance}
            named = {role: tensor for role, tensor in roles.items() if tensor is not None}
            put_batch_norm(translation, node, flow, named, found.epsilon)
            return
    factor = np.float64(1) if scale is None else constants.values[scale].astype(np.float64)
    if node.op == "RealDiv":
        with np.errstate(divide="ignore"):
            factor = 1 / factor
    summand = np.float64(0) if offset is None else sign * constants.values[offset].astype(np.float64)
    shapes = {values.shape for values in (factor, summand) if values.size != 1}
    if len({shape[-1:] for shape in shapes}) > 1 or any(math.prod(shape[:-1]) != 1 for shape in shapes):
        raise translation.refuse(node, "a constant with one number per channel, or for all", f"shapes {shapes}")
    factor, summand = factor.reshape(-1), summand.reshape(-1)
    join_to_convolution(translation, node, flow, factor, summand, offset)


def _unfold(translation: GraphTranslation, flow: str, offset: str) -> str | None:
    """Give the convolution before its own weight where the graph has folded a batch norm with this offset into it.

    Returns the batch norm's scale; None where nothing is folded.
    """
    layer = translation.layers.get(flow)
    if layer is not None and layer.op == "batch_to_space":
        layer = translation.layers.get(layer.inputs[0])
    if layer is None or layer.name not in translation.unfolded:
        return None
    constants = translation.constants
    name, scale = translation.unfolded[layer.name]
    if constants.values[name].ndim != 4 or constants.find_batch_norm(scale, offset) is None:
        return None
    weight = order_weight(layer.op, constants.values[name])
    factors = constants.values[scale][:, None, None, None]
    if factors.shape[0] != len(weight) or not np.array_equal(weight * factors, layer.arrays["weight"]):
        return None  # a product along another axis
    names = {"weight": constants.find_origin(name)}
    translation.layers[layer.name] = dataclasses.replace(layer, arrays={"weight": weight}, array_names=names)
    return scale
