"""Activations other than ReLUs: one operator, or several that spell it out, as one node.

Where a graph came from TensorFlow, transposes may stand between the operators: they move values, and change none.
"""

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
_READERS_OF_MAPS = ("Conv", "Pad", "GlobalAveragePool", "AveragePool", "ReduceMean")
"""A sigmoid before one of them is no score."""
_MOST_TRANSPOSES = 8  # one after the other, between two operators of an activation
_SLOPE = 0.01  # of our leaky ReLU, and of ONNX's where a file says nothing
Values = Mapping[str, NDArray[Any]]
Moved = tuple[str, tuple[int, ...]]
"""A tensor and the order in which its axes are taken, empty for their own."""


def join_curves(nodes: Sequence[Node], values: Values) -> list[Node]:
    """Return the nodes with each activation as one, whose operation is `CURVE`; `values` are the constants.

    x * sigmoid(x) is silu; x / 2 * (1 + erf(x / sqrt 2)) is gelu, as `write_graph` and PyTorch's exporters spell it,
    the older one halved at the end; x * relu6(x + 3) / 6 is hardswish, as Keras and older files do. From operator set
    20 on there is a Gelu.
    """
    graph = _Graph(nodes, values)
    found: dict[str, tuple[str, str]] = {}  # name of a node: function, and the tensor that it is of
    parts: set[str] = set()
    for node in nodes:
        joined = _find_silu(node, graph) or _find_gelu(node, graph) or _find_hardswish(node, graph)
        if joined is not None:
            found[node.name] = joined
            parts |= graph.between(joined[1], node)
        elif node.op in _SINGLE and node.inputs and node.name not in values:
            is_score = node.op == "Sigmoid" and not graph.is_read_as_map(node.name)
            is_ours = node.number("alpha", _SLOPE) == _SLOPE and node.text("approximate", "none") == "none"
            if is_ours and not is_score:
                found[node.name] = _SINGLE[node.op], node.inputs[0]
    gone = graph.find_unread(parts, found)
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


class _Graph:
    """Who makes and who reads a tensor, whatever transposes stand between."""

    def __init__(self, nodes: Sequence[Node], values: Values) -> None:
        self.nodes = nodes
        self.values = values
        self.makers = {name: node for node in nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in nodes:
            for tensor in node.inputs:
                self.readers.setdefault(tensor, []).append(node)

    def source(self, moved: Moved) -> Moved:
        """Return what transposes have moved to become this."""
        tensor, order = moved
        for _ in range(_MOST_TRANSPOSES):
            node = self.makers.get(tensor)
            axes = node.integers("perm", ()) if node is not None and _is_transpose(node) else ()
            if node is None or not axes or sorted(axes) != list(range(len(order or axes))):
                break
            tensor, order = node.inputs[0], tuple(axes[axis] for axis in order) if order else axes
        return tensor, () if order == tuple(range(len(order))) else order

    def operand(self, moved: Moved | None, op: str) -> tuple[Node, Moved] | None:
        """Return the operator that makes a tensor, and what it is of; None for another operator."""
        if moved is None:
            return None
        tensor, order = self.source(moved)
        node = self.makers.get(tensor)
        if node is None or node.op != op or not node.inputs:
            return None
        is_of_one = all(not name or name in self.values for name in node.inputs[1:])
        return (node, self.source((node.inputs[0], order))) if is_of_one else None

    def less_constant(self, moved: Moved | None, op: str, number: float) -> Moved | None:
        """Return the tensor that an operator joins with a constant of this number."""
        if moved is None:
            return None
        tensor, order = self.source(moved)
        for one, other in _pairs(self.makers.get(tensor), op):
            if self.is_number(other, number):
                return self.source((one, order))
        return None

    def less_factor(self, moved: Moved, factor: float, divisor: float) -> Moved | None:
        """Return the tensor of which another is the product with a number, or the quotient by its reciprocal."""
        found = self.operand(moved, "Div")
        if found is not None and len(found[0].inputs) == 2 and self.is_number(found[0].inputs[1], divisor):
            return found[1]
        return self.less_constant(moved, "Mul", factor)

    def is_number(self, tensor: str, number: float) -> bool:
        """Tell whether a tensor is a constant of this one number."""
        value = self.values.get(tensor)
        return value is not None and value.size == 1 and np.float32(value.item()) == np.float32(number)

    def is_read_as_map(self, tensor: str) -> bool:
        """Tell whether what sees height and width reads a tensor."""
        waiting = [tensor]
        for name in waiting:  # which grows
            readers = self.readers.get(name, ())
            if any(reader.op in _READERS_OF_MAPS for reader in readers):
                return True
            waiting += [reader.name for reader in readers if _is_transpose(reader)]
        return False

    def between(self, tensor: str, node: Node) -> set[str]:
        """Return the nodes from a tensor, or what it was moved from, to a node that is computed of it alone."""
        ends = {tensor, self.source((tensor, ()))[0]}
        waiting, found = [*node.inputs], set[str]()
        for name in waiting:  # which grows
            maker = self.makers.get(name)
            if name not in ends and name not in self.values and maker is not None and maker.name not in found:
                found.add(maker.name)
                waiting += maker.inputs
        return found

    def find_unread(self, parts: set[str], found: Mapping[str, tuple[str, str]]) -> set[str]:
        """Return those parts that nobody reads who stays, but for the parts of what was found."""
        unread: set[str] = set()
        for node in reversed(self.nodes):  # readers first
            if node.name in parts and all(
                reader.name in unread or (reader.name in found and found[reader.name][1] != node.name)
                for reader in self.readers.get(node.name, ())
            ):
                unread.add(node.name)
        return unread


def _is_transpose(node: Node) -> bool:
    return node.op == "Transpose" and len(node.inputs) == 1


Found = tuple[str, str] | None
"""A function, and the tensor that it is of."""


def _find_silu(node: Node, graph: _Graph) -> Found:
    for x, other in _pairs(node, "Mul"):
        sigmoid = graph.operand((other, ()), "Sigmoid")
        if sigmoid is not None and sigmoid[1] == graph.source((x, ())):
            return "silu", x
    return None


def _find_gelu(node: Node, graph: _Graph) -> Found:
    whole, order = graph.less_factor((node.name, ()), 0.5, 2) or ("", ())
    for first, raised in () if order else _pairs(graph.makers.get(whole) if whole else node, "Mul"):
        x = graph.source((first, ())) if whole else graph.less_factor((first, ()), 0.5, 2)
        erf = graph.operand(graph.less_constant((raised, ()), "Add", 1.0), "Erf")
        if x is None or erf is None or graph.less_factor(erf[1], np.sqrt(0.5), np.sqrt(2)) != x:
            continue
        if whole or not x[1]:
            return "gelu", first if whole else x[0]
    return None


def _find_hardswish(node: Node, graph: _Graph) -> Found:
    for x, other in _pairs(node, "Mul"):
        if _find_hard_sigmoid((other, ()), graph) == graph.source((x, ())):
            return "hardswish", x
    whole, order = graph.less_factor((node.name, ()), 1 / 6, 6) or ("", ())
    for x, other in () if order else _pairs(graph.makers.get(whole), "Mul"):
        if _find_raised_relu6((other, ()), graph) == graph.source((x, ())):
            return "hardswish", x
    return None


def _find_hard_sigmoid(moved: Moved, graph: _Graph) -> Moved | None:
    """Return the x of relu6(x + 3) / 6."""
    found = graph.operand(moved, "HardSigmoid")
    if found is not None:
        node, x = found
        slope, height = node.number("alpha", 0.2), node.number("beta", 0.5)
        return x if np.float32(slope) == np.float32(1 / 6) and height == 0.5 else None
    sixfold = graph.less_factor(moved, 1 / 6, 6)
    return None if sixfold is None else _find_raised_relu6(sixfold, graph)


def _find_raised_relu6(moved: Moved, graph: _Graph) -> Moved | None:
    """Return the x of relu6(x + 3)."""
    found = graph.operand(moved, "Clip")
    if found is None:
        return None
    node, raised = found
    limits = [
        graph.is_number(node.inputs[place], number) if len(node.inputs) > place else node.number(name, -1) == number
        for place, name, number in ((1, "min", 0.0), (2, "max", 6.0))
    ]
    return graph.less_constant(raised, "Add", 3.0) if all(limits) else None


def _pairs(node: Node | None, op: str) -> Iterator[tuple[str, str]]:
    """Yield the two inputs of an operator in both orders, nothing for another."""
    if node is not None and node.op == op and len(node.inputs) == 2:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]
