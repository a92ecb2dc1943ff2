"""Activations other than ReLUs: one operator, or several that spell it out, as one node."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.onnx.layouts import ModelTranslation
from minimobile.formats.onnx.model import Node

CURVE = "an activation"  # what the joined node is called; no file's operator can be
_SINGLE: Mapping[str, str] = {
    "LeakyRelu": "leaky_relu", "HardSwish": "hardswish", "Tanh": "tanh", "Sigmoid": "sigmoid", "Gelu": "gelu",
}  # fmt: skip
_READERS_OF_MAPS = (
    "Conv",
    "Pad",
    "GlobalAveragePool",
    "AveragePool",
    "ReduceMean",
)  # a sigmoid before one of them is no score
_SLOPE = 0.01  # of our leaky ReLU, and of ONNX's where a file says nothing
Values = Mapping[str, NDArray[Any]]


def join_curves(nodes: Sequence[Node], values: Values) -> list[Node]:
    """Return the nodes with each activation as one, whose operation is `CURVE`; `values` are the constants.

    x * sigmoid(x) is silu; x / 2 * (1 + erf(x / sqrt 2)) is gelu, as `write_graph` and PyTorch's exporters spell it,
    the older one halved at the end; from operator set 20 on there is a Gelu.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for tensor in node.inputs:
            readers.setdefault(tensor, []).append(node)
    found: dict[str, tuple[str, str]] = {}  # name of a node: function, and the tensor that it is of
    parts: set[str] = set()
    for node in nodes:
        x = _find_silu(node, makers) or _find_gelu(node, makers, values)
        if x is not None:
            function, tensor, own = x
            found[node.name] = function, tensor
            parts |= own
        elif node.op in _SINGLE and node.inputs and node.name not in values:
            is_score = node.op == "Sigmoid" and not any(
                reader.op in _READERS_OF_MAPS for reader in readers.get(node.name, ())
            )
            is_ours = node.number("alpha", _SLOPE) == _SLOPE and node.text("approximate", "none") == "none"
            if is_ours and not is_score:
                found[node.name] = _SINGLE[node.op], node.inputs[0]
    gone: set[str] = set()
    for node in reversed(nodes):  # readers first: what one of those that stay reads, stays
        if node.name in parts and all(
            each.name in gone or (each.name in found and found[each.name][1] != node.name)
            for each in readers.get(node.name, ())
        ):
            gone.add(node.name)
    return [
        dataclasses.replace(node, op=CURVE, inputs=found[node.name][1:], attributes={"function": found[node.name][0]})
        if node.name in found
        else node
        for node in nodes
        if node.name not in gone
    ]


def translate_curve(translation: ModelTranslation, node: Node) -> None:
    """Add the layer of a joined node."""
    flow = translation.flow(node)
    if flow is not None:
        translation.add_layer(node, "activation", flow, function=node.text("function", ""), is_curve=True)


Found = tuple[str, str, set[str]] | None
"""A function, the tensor that it is of, and the nodes that it is made of but for the last."""


def _find_silu(node: Node, makers: Mapping[str, Node]) -> Found:
    for x, other in _pairs(node, "Mul"):
        maker = makers.get(other)
        if maker is not None and maker.op == "Sigmoid" and maker.inputs[:1] == (x,):
            return "silu", x, {other}
    return None


def _find_gelu(node: Node, makers: Mapping[str, Node], values: Values) -> Found:
    whole = _less_constant(node, "Mul", 0.5, values)
    for first, raised in _pairs(makers.get(whole or node.name), "Mul"):
        x = first if whole else _less_constant(makers.get(first), "Mul", 0.5, values)
        error = _less_constant(makers.get(raised), "Add", 1.0, values)
        erf = makers.get(error or "")
        if x is None or error is None or erf is None or erf.op != "Erf" or not erf.inputs:
            continue
        if _find_scaled(makers.get(erf.inputs[0]), values) == x:
            return "gelu", x, {whole or first, raised, error, erf.inputs[0]}
    return None


def _find_scaled(node: Node | None, values: Values) -> str | None:
    """Return the tensor that an operator divides by the square root of 2."""
    divided = _less_constant(node, "Div", np.sqrt(2), values)
    if divided is not None and node is not None and divided == node.inputs[0]:
        return divided
    return _less_constant(node, "Mul", np.sqrt(0.5), values)


def _less_constant(node: Node | None, op: str, number: float, values: Values) -> str | None:
    """Return the tensor that an operator joins with a constant of this number."""
    for tensor, other in _pairs(node, op):
        value = values.get(other)
        if value is not None and value.size == 1 and np.float32(value.item()) == np.float32(number):
            return tensor
    return None


def _pairs(node: Node | None, op: str) -> Iterator[tuple[str, str]]:
    """Yield the two inputs of an operator in both orders, nothing for another."""
    if node is not None and node.op == op and len(node.inputs) == 2:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]
