"""Operators of integers as what they stand for: an operator of floats between DequantizeLinear and QuantizeLinear.

ONNX Runtime's static quantiser writes both forms (QOperator and QDQ); the first becomes the second here. Source:
ONNX's operators QLinearConv and QLinearMatMul, and ONNX Runtime's ContribOperators.md for the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.onnx.model import OTHER_DOMAIN, Model, Node
from minimobile.formats.onnx.tensors import Tensor

_CONTRIB = f"com.microsoft{OTHER_DOMAIN}"
# Operator -> the operator of floats, where its inputs (tensor, scale, zero point) begin, its result's scale, its bias.
_FORMS: Mapping[str, tuple[str, tuple[int, ...], int, int | None]] = {
    "QLinearConv": ("Conv", (0, 3), 6, 8),
    "QLinearMatMul": ("MatMul", (0, 3), 6, None),
    f"{_CONTRIB}QGemm": ("Gemm", (0, 3), 7, 6),
    f"{_CONTRIB}QLinearAdd": ("Add", (0, 3), 6, None),
    f"{_CONTRIB}QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), 3, None),
    f"{_CONTRIB}QLinearAveragePool": ("AveragePool", (0,), 3, None),
    f"{_CONTRIB}QLinearSigmoid": ("Sigmoid", (0,), 3, None),
}
_CONCATENATION = f"{_CONTRIB}QLinearConcat"
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def has_integers(model: Model) -> bool:
    """Return whether a model computes with integers between scales."""
    return any(node.op in (QUANTIZE, _CONCATENATION) or node.op in _FORMS for node in model.nodes)


def spread(model: Model) -> Model:
    """Return the model with every operator of integers as operators of floats between scales."""
    nodes: list[Node] = []
    constants = dict(model.constants)
    for node in model.nodes:
        if node.op == _CONCATENATION:
            inputs = [_restore(node, nodes, at) for at in range(2, len(node.inputs) - 2, 3)]
            _finish(node, nodes, "Concat", inputs, 0)
        elif node.op in _FORMS:
            op, places, result, bias = _FORMS[node.op]
            if len(node.inputs) < max(*places, result) + (0 if result > places[-1] else 2):
                raise _refuse(node, "an input, a scale and a zero point for each tensor", f"{len(node.inputs)} inputs")
            inputs = [_restore(node, nodes, at) for at in places]
            if bias is not None and len(node.inputs) > bias and node.inputs[bias]:
                inputs.append(_restore_bias(node, nodes, constants, bias))
            _finish(node, nodes, op, inputs, result)
        else:
            nodes.append(node)
    return dataclasses.replace(model, nodes=tuple(nodes), constants=constants)


def _restore(node: Node, nodes: list[Node], at: int) -> str:
    """Add the node that gives the numbers of the input `at`, whose scale and zero point follow it."""
    name = f"{node.name}/{at}/dequantized"
    along = {"axis": 0} if at == 3 and node.op == "QLinearConv" else {"axis": 1} if at == 3 else {}
    nodes.append(dataclasses.replace(
        node, name=name, op=DEQUANTIZE, inputs=node.inputs[at : at + 3], outputs=(name,),
        attributes=along if node.op != f"{_CONTRIB}QGemm" else {"axis": 0},
    ))  # fmt: skip
    return name


def _restore_bias(node: Node, nodes: list[Node], constants: dict[str, Tensor], at: int) -> str:
    """Add the node that gives the numbers of a bias: its scale is that of the input times that of the weight."""
    found = [constants.get(node.inputs[place]) for place in (1, 4)]
    scales = [tensor.values for tensor in found if tensor is not None and tensor.values is not None]
    if len(scales) != 2 or scales[0].size != 1:
        raise _refuse(node, "constants as scales", "others")
    name = f"{node.name}/{at}/dequantized"
    product = scales[0].astype(np.float32).reshape(()) * scales[1].astype(np.float32)
    constants[f"{name}/scale"] = Tensor(f"{name}/scale", "float32", product.shape, product)
    inputs = node.inputs[at], f"{name}/scale"
    along = {"axis": 0}
    nodes.append(dataclasses.replace(node, name=name, op=DEQUANTIZE, inputs=inputs, outputs=(name,), attributes=along))
    return name


def _finish(node: Node, nodes: list[Node], op: str, inputs: Sequence[str], scale: int) -> None:
    """Add the operator of floats, and the node that quantises its result."""
    name = f"{node.name}/numbers"
    nodes.append(dataclasses.replace(node, name=name, op=op, inputs=tuple(inputs), outputs=(name,)))
    by = node.inputs[scale : scale + 2]
    nodes.append(dataclasses.replace(node, op=QUANTIZE, inputs=(name, *by), attributes={}))


def _refuse(node: Node, expected: str, found: str) -> FormatError:
    return FormatError(f"{node.where}: node {node.title} ({node.op}): expected {expected}, found {found}")
