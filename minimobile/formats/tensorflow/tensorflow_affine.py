"""Sums and products in a frozen graph: residuals, batch norm written out, and the bias of a convolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.matching.network import Layer
from minimobile.formats.tensorflow.graph_def import GraphNode
from minimobile.formats.tensorflow.tensorflow_layers import Translation, order_weight

SUMS = ("Add", "AddV2")
ARITHMETIC = (*SUMS, "Sub", "Mul", "RealDiv")


def translate_arithmetic(translation: Translation, node: GraphNode) -> None:
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


def translate_sum(translation: Translation, node: GraphNode) -> None:
    """Translate AddN of two maps."""
    if len(node.inputs) == 2 and all(tensor in translation.flows for tensor in node.inputs):
        translation.add(node, "add", [translation.flows[tensor] for tensor in node.inputs])


def add_bias(translation: Translation, node: GraphNode, flow: str, offset: str, sign: int = 1) -> None:
    """Add `x + sign * offset`, a constant tensor."""
    _add_affine(translation, node, flow, None, offset, sign)


def _is_followed_by_sum(translation: Translation, node: GraphNode) -> bool:
    """Return whether the only reader of a product adds a constant to it or takes one off."""
    readers = translation.readers.get(node.name, [])
    if len(readers) != 1 or len(readers[0].inputs) != 2:
        return False
    (reader,) = readers
    places = [index for index in (0, 1) if reader.inputs[index] in translation.constants.values]
    return (places == [0] and reader.op in SUMS) or (places == [1] and reader.op in (*SUMS, "Sub"))


def _add_affine(
    translation: Translation, node: GraphNode, flow: str, scale: str | None, offset: str | None, sign: int
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
    shapes = {np.squeeze(values).shape for values in (factor, summand)} - {()}
    if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
        raise translation.refuse(node, "a constant with one number per channel, or for all", f"shapes {shapes}")
    factor, summand = np.atleast_1d(np.squeeze(factor)), np.atleast_1d(np.squeeze(summand))
    _join_to_convolution(translation, node, flow, factor, summand, offset)


def _unfold(translation: Translation, flow: str, offset: str) -> str | None:
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


def _join_to_convolution(
    translation: Translation,
    node: GraphNode,
    flow: str,
    factor: NDArray[np.float64],
    summand: NDArray[np.float64],
    offset: str | None,
) -> None:
    """Let the convolution before do `x * factor + summand`, also if a batch_to_space lies between."""
    layer = target = translation.layers.get(flow)
    if layer is not None and layer.op == "batch_to_space":
        target = translation.layers.get(layer.inputs[0])
    if layer is not None and layer.op == "add" and (factor == 1).all():
        target = _find_summed_convolution(translation, layer)
    if layer is None or target is None or target.op not in ("conv2d", "depthwise_conv2d", "dense"):
        found = "the picture" if layer is None else layer.op
        raise translation.refuse(node, "a convolution before this constant", found)
    if any(len(translation.readers.get(each.tensor, [])) > 1 for each in (layer, target)):
        raise translation.refuse(node, "nothing else to read the convolution before this constant", "other readers")
    weight = target.arrays["weight"]
    channels = len(weight)
    if {len(factor), len(summand)} - {1, channels}:
        raise translation.refuse(node, f"{channels} numbers, one per channel", max(len(factor), len(summand)))
    arrays = dict(target.arrays)
    names = dict(target.array_names)
    if (factor != 1).any():
        arrays["weight"] = (weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))).astype(weight.dtype)
    if offset is not None or "bias" in arrays:
        bias = arrays.get("bias", np.zeros(channels)).astype(np.float64) * factor + summand
        arrays["bias"] = np.broadcast_to(bias, (channels,)).astype(weight.dtype)
    if offset is not None:
        names["bias"] = translation.constants.find_origin(offset)
    tensor = node.name if target is layer else target.tensor
    attributes = {**target.attributes, "is_tensor_partial": True} if layer.op == "add" else target.attributes
    translation.put(dataclasses.replace(target, arrays=arrays, attributes=attributes, array_names=names, tensor=tensor))
    if target is not layer:
        translation.put(dataclasses.replace(layer, tensor=node.name))


def _find_summed_convolution(translation: Translation, layer: Layer) -> Layer | None:
    """Return the convolution that a sum alone reads: a bias behind the sum is its own, as Grappler moves it."""
    found = [translation.layers.get(name) for name in layer.inputs]
    alone = [
        source
        for source in found
        if source is not None and source.op == "conv2d" and len(translation.readers.get(source.tensor, [])) == 1
    ]
    return alone[0] if len(alone) == 1 else None


def put_batch_norm(
    translation: Translation, node: GraphNode, flow: str, roles: Mapping[str, str], epsilon: float
) -> None:
    """Add a batch norm; `roles` are the tensors that hold its numbers."""
    constants = translation.constants
    arrays = {role: constants.values[tensor] for role, tensor in roles.items() if tensor in constants.values}
    if len(arrays) != len(roles) or any(values.dtype.kind != "f" for values in arrays.values()):
        raise translation.refuse(node, "floating-point constants as the numbers of its batch norm", "others")
    names = {role: constants.find_origin(tensor) for role, tensor in roles.items()}
    attributes = {"epsilon": epsilon}
    translation.put(Layer(node.name, "batch_norm", (flow,), arrays, attributes, names, node.name))
