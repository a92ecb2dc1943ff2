"""ONNX's operators as layers: from the picture to as far after the logits as operators are understood."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.onnx.arithmetic import translate_arithmetic, translate_batch_norm, translate_limits
from minimobile.formats.onnx.constants import IDENTITIES, Constants, read_axes
from minimobile.formats.onnx.curves import CURVE, translate_curve
from minimobile.formats.onnx.detector import JOIN
from minimobile.formats.onnx.layouts import (
    CHANNELS_LAST,
    PLAIN,
    ROWS,
    ModelTranslation,
    find_input_layout,
    read_axis,
    read_padding,
    read_square,
)
from minimobile.formats.onnx.model import Node

WEIGHTED = ("Conv", "Gemm", "MatMul")
DEFAULT_RESIZE = "half_pixel"
RESIZES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def translate(
    nodes: Sequence[Node], constants: Constants, where: str
) -> tuple[ModelTranslation, str, str]:  # fmt: skip
    """Return what has been translated, the input that is the picture, and which axis of it is which.

    `nodes` are in the order of computation. What is not understood is left out after the last convolution. Raises
    FormatError, naming the node, where something before a convolution is not understood.
    """
    first = next((node for node in nodes if node.op == "Conv" and node.inputs), None)
    if first is None:
        raise FormatError(f"{where}: expected the convolutions of a MobileNet, found none among {len(nodes)} nodes")
    picture, layout = find_input_layout(nodes, first, constants, where)
    translation = ModelTranslation(
        where, constants.values, constants.find_origin, _find_readers(nodes), flows={picture: PICTURE},
        layouts={picture: layout}, shapes=constants.shapes,
    )  # fmt: skip
    for node in nodes:
        if node.name in constants.values:
            continue
        if node.op not in TRANSLATORS:
            raise FormatError(
                f"{where}: node {node.title}: expected an operation of a MobileNet, found {node.op[:80]}, which is not "
                "loaded"
            )
        TRANSLATORS[node.op](translation, node)
        if node.op in WEIGHTED and node.name not in translation.flows:
            raise _explain(translation, nodes, node)
    return translation, picture, layout


def _find_readers(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """Return the nodes that read a tensor, or what only moves or copies its values."""
    origins: dict[str, str] = {}
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        if node.op in PASSED and node.inputs:
            origins[node.name] = origins.get(node.inputs[0], node.inputs[0])
        elif node.op != "Shape":
            for tensor in node.inputs:
                readers.setdefault(origins.get(tensor, tensor), []).append(node)
    return readers


def _explain(translation: ModelTranslation, nodes: Sequence[Node], node: Node) -> FormatError:
    """Return why a convolution has no input: the node on the way to it that is not understood."""
    makers = {name: other for other in nodes for name in other.outputs}
    seen = {node.name}
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if found is not node and any(tensor in translation.flows for tensor in found.inputs):
            return translation.refuse(found, f"an operation of a MobileNet before {node.title}", found.op)
        before = [makers[name] for name in found.inputs if name in makers and name not in translation.values]
        waiting += [other for other in before if other.name not in seen]
        seen.update(other.name for other in before)
    return translation.refuse(node, "to be computed from the picture that the other convolutions see", "another input")


def _translate_convolution(translation: ModelTranslation, node: Node) -> None:
    flow, weight = translation.flow(node), translation.constant(node, 1)
    if flow is None:
        return
    if weight is None or weight.ndim != 4 or weight.dtype.kind != "f":
        raise translation.refuse(node, "a constant of four dimensions as its weight", "none")
    translation.need(node, PLAIN)
    group = node.integer("group", 1)
    is_depthwise = group > 1 or (weight.shape[1] == 1 and weight.shape[2:] != (1, 1) and _is_single(translation, flow))
    if is_depthwise and (weight.shape[1] != 1 or weight.shape[0] != group):
        raise translation.refuse(node, "one filter for each channel", f"a weight {weight.shape} in {group} groups")
    attributes: dict[str, Any] = {
        "stride": read_square(translation, node, "strides"),
        "dilation": read_square(translation, node, "dilations"),
        "padding": read_padding(translation, node),
    }
    arrays, names = {"weight": weight}, {"weight": translation.find_origin(node.inputs[1])}
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = translation.constant(node, 2)
        if bias is None or bias.dtype.kind != "f":
            raise translation.refuse(node, "a constant as its bias", "none")
        arrays["bias"], names["bias"] = bias, translation.find_origin(node.inputs[2])
    op = "depthwise_conv2d" if is_depthwise else "conv2d"
    translation.put(Layer(node.name, op, (flow,), arrays, attributes, names, node.name))
    translation.layouts[node.name] = PLAIN


def _is_single(translation: ModelTranslation, flow: str) -> bool:
    """Return whether a layer has one channel: then one group is a filter for each, too."""
    layer = translation.layers.get(flow)
    return layer is not None and "weight" in layer.arrays and len(layer.arrays["weight"]) == 1


def _translate_gemm(translation: ModelTranslation, node: Node) -> None:
    flow, weight = translation.flow(node), translation.constant(node, 1)
    if flow is None:
        return
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f" or node.integer("transA", 0):
        raise translation.refuse(node, "a product with a constant matrix", "another")
    if node.number("alpha", 1) != 1 or node.number("beta", 1) != 1:
        raise translation.refuse(node, "alpha and beta of 1", "others")
    _check_rows(translation, node)
    is_transposed = node.op == "Gemm" and node.integer("transB", 0)
    arrays, names = (
        {"weight": weight if is_transposed else weight.T},
        {"weight": translation.find_origin(node.inputs[1])},
    )
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = translation.constant(node, 2)
        if bias is None or bias.dtype.kind != "f":
            raise translation.refuse(node, "a constant as its bias", "none")
        arrays["bias"] = np.broadcast_to(bias.reshape(-1), (len(arrays["weight"]),)) if bias.size == 1 else bias.ravel()
        names["bias"] = translation.find_origin(node.inputs[2])
    translation.put(Layer(node.name, "dense", (flow,), arrays, {}, names, node.name))
    translation.layouts[node.name] = translation.layout(node) or ROWS


def _check_rows(translation: ModelTranslation, node: Node) -> None:
    """Refuse a product along another axis than the channels'."""
    layout = translation.layout(node)
    if layout and layout[-1] != "C":
        raise translation.refuse(node, "channels as the last axis of its input", layout)


def _translate_activation(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is not None:
        translation.add_layer(node, "activation", flow, function=node.op.lower())


def _translate_pad(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    amounts = translation.integers(node, 1)
    given = node.integers("pads", ()) if len(node.inputs) < 2 else None
    if given is None and amounts is None:
        return
    pads = list(given) if given is not None else [int(amount) for amount in amounts.ravel()[:16]]  # type: ignore[union-attr]
    layout = translation.layout(node)
    axes = translation.integers(node, 3)
    along = range(len(layout)) if axes is None else [int(axis) % max(len(layout), 1) for axis in axes.ravel()[:8]]
    if len(pads) != 2 * len(along) or not layout:
        raise translation.refuse(node, "two amounts for each axis", pads[:9])
    by_letter = dict.fromkeys(layout, (0, 0)) | {
        layout[axis]: (pads[index], pads[index + len(along)]) for index, axis in enumerate(along)
    }
    filler = translation.constant(node, 2)
    if filler is None and any(node.inputs[2:3]):
        raise translation.refuse(node, "a constant around its map", "what is computed")
    value = node.number("value", 0.0) if filler is None or not filler.size else float(filler.ravel()[0])
    is_right = min(pads, default=0) >= 0 and not any(by_letter.get("N", (0, 0)) + by_letter.get("C", (0, 0)))
    if not is_right or node.text("mode", "constant") != "constant" or value != 0:
        raise translation.refuse(node, "zeros around height and width", f"{pads} of {node.text('mode', 'constant')}")
    rows, columns = (by_letter.get(letter, (0, 0)) for letter in "HW")
    if any(rows + columns):
        translation.add_layer(node, "pad", flow, padding=(rows, columns))
    else:
        translation.pass_on(node, flow)


def _translate_pool(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    translation.need(node, PLAIN)
    if node.integer("ceil_mode", 0) or set(node.integers("dilations", ())) - {1}:
        raise translation.refuse(node, "ceil_mode 0 and dilations 1", "others")
    if node.op == "GlobalAveragePool":
        translation.add_layer(node, "average_pool2d", flow, kernel_size=None, stride=1, padding="VALID")
        return
    kernel = node.integers("kernel_shape", ())
    padding = read_padding(translation, node)
    if len(kernel) != 2 or min(kernel) < 1 or (padding not in ("VALID", ((0, 0), (0, 0)))):
        raise translation.refuse(node, "a window over height and width without padding", kernel[:9])
    stride = read_square(translation, node, "strides")
    translation.add_layer(node, "average_pool2d", flow, kernel_size=kernel, stride=stride, padding="VALID")


def _translate_mean(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    axes = read_axes(node, translation.integers(node, 1)) or ()
    layout = translation.layout(node)
    letters = {read_axis(translation, node, axis) for axis in axes}
    source = translation.layers.get(flow)
    if source is not None and source.attributes.get("kind") == "mean of an axis":  # one axis after the other
        letters |= {source.attributes["letter"]}
        flow = source.inputs[0]
    rest = layout if node.integer("keepdims", 1) else "".join(letter for letter in layout if letter not in letters)
    if letters == {"H", "W"}:
        if source is not None and flow != source.name:
            del translation.layers[source.name]
        translation.add_layer(node, "average_pool2d", flow, rest, kernel_size=None, stride=1, padding="VALID")
    elif letters in ({"H"}, {"W"}):
        translation.add_layer(node, "other", flow, rest, kind="mean of an axis", letter=letters.pop())
    elif flow != PICTURE:
        translation.add_layer(node, "other", flow, "", kind="mean")


def _translate_concatenation(translation: ModelTranslation, node: Node) -> None:
    flows = [translation.flows.get(tensor) for tensor in node.inputs]
    named = [flow for flow in flows if flow is not None]
    if not named or len(named) != len(flows):
        return
    layouts = {translation.layouts.get(tensor, "") for tensor in node.inputs}
    if len(layouts) == 1 and read_axis(translation, node, node.integer("axis", 1)) == "C":
        translation.add(node, "concatenate", named)
    else:
        translation.add(node, "other", named, kind=JOIN)
    translation.layouts[node.name] = layouts.pop() if len(layouts) == 1 else ""


def _translate_resize(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    mode = node.text("mode", "nearest")
    rule = node.text("coordinate_transformation_mode", DEFAULT_RESIZE if node.op == "Resize" else "asymmetric")
    layout = translation.layout(node)
    if mode != "linear" or layout not in (PLAIN, CHANNELS_LAST) or not is_plain_resize(node, rule):
        translation.add_layer(node, "other", flow, kind=f"{mode[:40]} resize by {rule[:40]}")
        return
    sizes = translation.integers(node, 3)
    size = None
    if sizes is not None and sizes.shape == (4,):
        size = tuple(int(sizes[layout.index(letter)]) for letter in "HW")
    translation.add_layer(
        node, "resize_bilinear", flow,
        align_corners=rule == "align_corners", half_pixel_centers=rule.endswith("half_pixel"), size=size,
    )  # fmt: skip


def is_plain_resize(node: Node, rule: str) -> bool:
    """Return whether a linear resize weighs two neighbours on each axis, all four axes in one order."""
    others = ("antialias", "exclude_outside")
    is_stretched = node.text("keep_aspect_ratio_policy", "stretch") == "stretch"
    is_by_neighbours = is_stretched and not any(node.integer(name, 0) for name in others)
    return rule in RESIZES and is_by_neighbours and not node.integers("axes", ())


def _translate_reshape(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    layout = translation.layout(node)
    target = ""
    if node.op == "Flatten":
        target = ROWS if node.integer("axis", 1) == 1 else ""
    elif node.op == "Squeeze":
        axes = read_axes(node, translation.integers(node, 1))
        dropped = {axis % len(layout) for axis in axes} if axes and layout else {2, 3} if layout == PLAIN else {1, 2}
        target = "".join(letter for axis, letter in enumerate(layout) if axis not in dropped)
    elif node.op == "Unsqueeze":
        axes = read_axes(node, translation.integers(node, 1))
        target = PLAIN if axes == (2, 3) else CHANNELS_LAST if axes == (1, 2) else ""
    else:
        sizes = translation.integers(node, 1)
        shape = node.integers("shape", ()) if sizes is None else tuple(int(size) for size in sizes.ravel()[:8])
        if len(shape) == 4:
            target = PLAIN if shape[2:] == (1, 1) else CHANNELS_LAST if shape[1:3] == (1, 1) else ""
        elif len(shape) == 2 or sizes is None:
            target = ROWS
    if flow == PICTURE or (len(target) == 4 and translation.is_pixel(node)):  # tf2onnx' transposes of single pixels
        translation.pass_on(node, flow, target)
    else:
        translation.add_layer(node, "reshape", flow, target)


def _translate_transpose(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    layout = translation.layout(node)
    order = node.integers("perm", tuple(range(len(layout)))[::-1])
    is_known = sorted(order) == list(range(len(layout)))
    translation.pass_on(node, flow, "".join(layout[axis] for axis in order) if is_known else "")


def _translate_argmax(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is not None:
        translation.add_layer(node, "argmax", flow, "")


def _pass_on(translation: ModelTranslation, node: Node) -> None:
    flow = translation.flow(node)
    if flow is None:
        return
    if node.op == "Dropout" and any(node.inputs[2:]):
        is_training = translation.constant(node, 2)
        if is_training is None or is_training.any():
            raise translation.refuse(node, "dropout for inference", "one for training (training_mode)")
    translation.pass_on(node, flow)


def _translate_quantization(translation: ModelTranslation, node: Node) -> None:
    """Pass a map on; of a convolution whose bytes stand for nothing below zero, with the activation that they imply.

    ONNX Runtime's quantiser leaves out a clamp that the bytes do themselves.
    """
    flow, scale = translation.flow(node), translation.constant(node, 1)
    if flow is None:
        return
    layer, zero = translation.layers.get(flow), translation.constant(node, 2)
    low = 0 if zero is None else np.iinfo(zero.dtype).min if zero.dtype in (np.uint8, np.int8) else None
    is_clamped = scale is not None and scale.size == 1 and low is not None and (zero is None or (zero == low).all())
    if layer is None or layer.op not in ("conv2d", "depthwise_conv2d") or not is_clamped:
        translation.pass_on(node, flow)
        if layer is not None:
            translation.layers[flow] = dataclasses.replace(layer, tensor=node.name)
        return
    assert scale is not None
    function = "relu6" if float(scale.item()) * 255 < 6.01 else "relu"
    translation.add_layer(node, "activation", flow, function=function)


def _pass_over(translation: ModelTranslation, node: Node) -> None:
    """Leave out what computes shapes, and what comes after the network."""


PASSED = (*IDENTITIES, "Cast", "CastLike", "DequantizeLinear", "QuantizeLinear", "Transpose")
"""Operators whose result is their first input, whatever its type and the order of its axes."""
_AROUND = (
    "Constant", "ConstantOfShape", "Equal", "Expand", "Gather", "Greater", "Less", "Neg", "Range", "ReduceProd",
    "Shape", "Size", "Slice", "Split", "Sqrt", "Tile", "TopK", "Where",
)  # fmt: skip

TRANSLATORS: Mapping[str, Callable[[ModelTranslation, Node], None]] = {
    **dict.fromkeys(_AROUND, _pass_over),
    **dict.fromkeys((*IDENTITIES, "Cast", "CastLike", "DequantizeLinear"), _pass_on),
    "QuantizeLinear": _translate_quantization,
    "Conv": _translate_convolution,
    **dict.fromkeys(("Gemm", "MatMul"), _translate_gemm),
    "BatchNormalization": translate_batch_norm,
    **dict.fromkeys(("Add", "Sum", "Sub", "Mul", "Div"), translate_arithmetic),
    **dict.fromkeys(("Relu", "Clip", "Min", "Max"), translate_limits),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sigmoid"), _translate_activation),
    CURVE: translate_curve,
    "Pad": _translate_pad,
    **dict.fromkeys(("GlobalAveragePool", "AveragePool"), _translate_pool),
    "ReduceMean": _translate_mean,
    "Concat": _translate_concatenation,
    **dict.fromkeys(("Resize", "Upsample"), _translate_resize),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _translate_reshape),
    "Transpose": _translate_transpose,
    "ArgMax": _translate_argmax,
}
"""Operator -> the function that adds its layers."""
