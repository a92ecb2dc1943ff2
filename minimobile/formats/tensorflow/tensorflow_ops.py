"""A frozen graph's operations as layers: from the picture to as far after the logits as operations are understood.

What computes shapes is passed over; what comes before the first convolution is for `tensorflow_preamble.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minimobile.errors import FormatError
from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.matching.translation import put_batch_norm
from minimobile.formats.tensorflow.graph_constants import IDENTITIES, Constants, read_fake_quantization
from minimobile.formats.tensorflow.graph_def import GraphNode, find_node_name
from minimobile.formats.tensorflow.tensorflow_affine import (
    ARITHMETIC,
    add_bias,
    translate_arithmetic,
    translate_sum,
)
from minimobile.formats.tensorflow.tensorflow_layers import (
    GraphTranslation,
    check_layout,
    order_weight,
    read_amounts,
    read_padding,
    read_square,
)

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def translate(
    nodes: Sequence[GraphNode], constants: Constants, start: str, first: Sequence[Layer], where: str
) -> tuple[Layer, ...]:
    """Return the layers from the tensor `start` on, which is the value of the last of the layers `first`.

    `nodes` are in the order of computation. What is not understood is left out after the last convolution. Raises
    FormatError, naming the node, where something before a convolution is not understood.
    """
    readers: dict[str, list[GraphNode]] = {}
    for node in nodes:
        for tensor in node.inputs if node.op not in IDENTITIES else ():
            readers.setdefault(constants.find_origin(tensor), []).append(node)
    translation = GraphTranslation(
        where, constants.values, constants.find_origin, readers, {layer.name: layer for layer in first},
        constants=constants,
    )  # fmt: skip
    translation.flows[start] = first[-1].name if first else PICTURE
    for node in nodes:
        if node.name in constants.values or node.name in translation.flows:
            continue
        flow = translation.flow(node)
        if node.op in IDENTITIES and flow is not None:
            translation.flows[node.name] = flow
        elif node.op in TRANSLATORS:
            TRANSLATORS[node.op](translation, node)
        if node.op in (*_CONVOLUTIONS, "MatMul") and node.name not in translation.flows:
            raise _explain(translation, nodes, node)
    return tuple(translation.layers.values())


def _explain(translation: GraphTranslation, nodes: Sequence[GraphNode], node: GraphNode) -> FormatError:
    """Return why a convolution has no input: the node on the way to it that is not understood."""
    named = {node.name: node for node in nodes}
    seen = {node.name}
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if found is not node and any(tensor in translation.flows for tensor in found.inputs):
            return translation.refuse(found, f"an operation of a MobileNet before {node.name}", found.op)
        names = [find_node_name(tensor) for tensor in found.inputs if tensor not in translation.constants.values]
        waiting += [named[name] for name in names if name not in seen]
        seen.update(names)
    return translation.refuse(node, "to be computed from the picture that the other convolutions see", "another input")


def _translate_convolution(translation: GraphTranslation, node: GraphNode) -> None:
    flow, weight = translation.flow(node), translation.constant(node, 1)
    if flow is None:
        return
    if weight is None or weight.ndim != 4 or weight.dtype.kind != "f":
        raise translation.refuse(node, "a constant of four dimensions as its weight", "none")
    check_layout(translation, node)
    is_depthwise = node.op == "DepthwiseConv2dNative"
    if is_depthwise and weight.shape[3] != 1:
        raise translation.refuse(node, "one filter for each channel", weight.shape[3])
    attributes: dict[str, Any] = {
        "stride": read_square(translation, node, "strides"),
        "dilation": read_square(translation, node, "dilations"),
        "padding": read_padding(translation, node),
    }
    name = translation.constants.find_origin(node.inputs[1])
    if name in translation.constants.quantizations:
        attributes["weight_quantization"] = translation.constants.quantizations[name]
    factors = translation.constants.find_factors(name)
    if factors is not None:
        translation.unfolded[node.name] = factors
    op = "depthwise_conv2d" if is_depthwise else "conv2d"
    arrays = {"weight": order_weight(op, weight)}
    translation.put(Layer(node.name, op, (flow,), arrays, attributes, {"weight": name}, node.name))


def _translate_matmul(translation: GraphTranslation, node: GraphNode) -> None:
    flow, weight = translation.flow(node), translation.constant(node, 1)
    if flow is None:
        return
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f" or node.flag("transpose_a", False):
        raise translation.refuse(node, "a product with a constant matrix", "another")
    weight = weight if node.flag("transpose_b", False) else weight.T
    names = {"weight": translation.constants.find_origin(node.inputs[1])}
    translation.put(Layer(node.name, "dense", (flow,), {"weight": weight}, {}, names, node.name))


def _translate_batch_norm(translation: GraphTranslation, node: GraphNode) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    check_layout(translation, node)
    if node.flag("is_training", True):
        raise translation.refuse(node, "batch norm for inference (is_training false)", "one for training")
    roles = dict(zip(("weight", "bias", "mean", "variance"), node.inputs[1:], strict=False))
    put_batch_norm(translation, node, flow, roles, node.number("epsilon", 1e-4))


def _translate_bias(translation: GraphTranslation, node: GraphNode) -> None:
    flow, bias = translation.flow(node), translation.constant(node, 1)
    if flow is None:
        return
    check_layout(translation, node)
    if bias is None:
        raise translation.refuse(node, "a constant", "another tensor")
    add_bias(translation, node, flow, node.inputs[1])


def _translate_activation(translation: GraphTranslation, node: GraphNode) -> None:
    flow = translation.flow(node)
    if flow is not None:
        translation.add(node, "activation", (flow,), function=node.op.lower())


def _translate_clip(translation: GraphTranslation, node: GraphNode) -> None:
    """Translate relu6 as older Keras writes it: max(min(relu(x), 6), 0)."""
    flow, limit = translation.flow(node), translation.constant(node, 1)
    layer = None if flow is None else translation.layers.get(flow)
    if layer is None or limit is None or limit.size != 1 or len(translation.readers.get(layer.tensor, [])) > 1:
        return
    function = layer.attributes.get("function")
    if (node.op, limit.item(), function) in (("Minimum", 6, "relu"), ("Maximum", 0, "relu6")):
        translation.put(dataclasses.replace(layer, attributes={"function": "relu6"}, tensor=node.name))


def _translate_pad(translation: GraphTranslation, node: GraphNode) -> None:
    flow, amounts = translation.flow(node), translation.integers(node, 1)
    if flow is not None and amounts is not None:
        translation.add(node, "pad", (flow,), padding=read_amounts(translation, node, amounts, 4))


def _translate_space_to_batch(translation: GraphTranslation, node: GraphNode) -> None:
    flow, block, amounts = translation.flow(node), translation.integers(node, 1), translation.integers(node, 2)
    if flow is None:
        return
    if block is None or amounts is None or block.shape != (2,):
        raise translation.refuse(node, "constants for two axes", "something else")
    sides = int(block[0]), int(block[1])
    pads = read_amounts(translation, node, amounts, 2)
    if node.op == "SpaceToBatchND":
        translation.add(node, "space_to_batch", (flow,), block=sides, padding=pads)
    else:
        translation.add(node, "batch_to_space", (flow,), block=sides, crop=pads)


def _translate_pool(translation: GraphTranslation, node: GraphNode) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    check_layout(translation, node)
    kernel = node.integers("ksize", ())
    if len(kernel) != 4 or kernel[0] != 1 or kernel[3] != 1 or min(kernel) < 1:
        raise translation.refuse(node, "a window over height and width", kernel)
    stride, padding = read_square(translation, node, "strides"), read_padding(translation, node)
    translation.add(node, "average_pool2d", (flow,), kernel_size=kernel[1:3], stride=stride, padding=padding)


def _translate_mean(translation: GraphTranslation, node: GraphNode) -> None:
    flow, axes = translation.flow(node), translation.integers(node, 1)
    if flow is None or axes is None:
        return
    if sorted(int(axis) % 4 for axis in axes.ravel()[:4]) == [1, 2]:
        translation.add(node, "average_pool2d", (flow,), kernel_size=None, stride=1, padding="VALID")


def _translate_concatenation(translation: GraphTranslation, node: GraphNode) -> None:
    flows = [translation.flows.get(tensor) for tensor in node.inputs[:-1]]
    axis = translation.constants.values.get(node.inputs[-1]) if node.inputs else None
    named = [flow for flow in flows if flow is not None]
    if len(named) == len(flows) > 0 and axis is not None and axis.size == 1 and axis.item() in (3, -1):
        translation.add(node, "concatenate", named)


def _translate_resize(translation: GraphTranslation, node: GraphNode) -> None:
    flow, size = translation.flow(node), translation.integers(node, 1)
    if flow is None:
        return
    translation.add(
        node,
        "resize_bilinear",
        (flow,),
        align_corners=node.flag("align_corners", False),
        half_pixel_centers=node.flag("half_pixel_centers", False),
        size=None if size is None or size.shape != (2,) else (int(size[0]), int(size[1])),
    )


def _translate_reshape(translation: GraphTranslation, node: GraphNode) -> None:
    flow = translation.flow(node)
    if flow is not None and flow != PICTURE:
        translation.add(node, "reshape", (flow,))


def _translate_argmax(translation: GraphTranslation, node: GraphNode) -> None:
    flow = translation.flow(node)
    if flow is not None:
        translation.add(node, "argmax", (flow,))


def _translate_fake_quantization(translation: GraphTranslation, node: GraphNode) -> None:
    flow = translation.flow(node)
    if flow is not None:
        quantization = read_fake_quantization(node, translation.constants.values)
        translation.add(node, "fake_quantize", (flow,), quantization=quantization)


TRANSLATORS: Mapping[str, Callable[[GraphTranslation, GraphNode], None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _translate_convolution),
    "MatMul": _translate_matmul,
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _translate_batch_norm),
    "BiasAdd": _translate_bias,
    **dict.fromkeys(ARITHMETIC, translate_arithmetic),
    "AddN": translate_sum,
    **dict.fromkeys(("Relu", "Relu6", "Softmax", "Sigmoid"), _translate_activation),
    **dict.fromkeys(("Minimum", "Maximum"), _translate_clip),
    "Pad": _translate_pad,
    **dict.fromkeys(("SpaceToBatchND", "BatchToSpaceND"), _translate_space_to_batch),
    "AvgPool": _translate_pool,
    "Mean": _translate_mean,
    "ConcatV2": _translate_concatenation,
    "ResizeBilinear": _translate_resize,
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), _translate_reshape),
    "ArgMax": _translate_argmax,
    "FakeQuantWithMinMaxVars": _translate_fake_quantization,
}
"""Operation -> the function that adds its layers."""
