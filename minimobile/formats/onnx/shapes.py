"""How large the maps of an ONNX graph are: exporters let a graph ask, where padding depends on the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.onnx.model import Node

Shape = tuple[int, ...]
RANK_LIMIT = 8
_UNCHANGED = frozenset({
    "BatchNormalization", "Cast", "CastLike", "Clip", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear",
    "Relu",
})  # fmt: skip
_BROADCAST = frozenset({"Add", "Div", "Max", "Min", "Mul", "Sub", "Sum"})


def infer_shape(node: Node, shapes: Mapping[str, Shape], values: Mapping[str, NDArray[Any]]) -> Shape | None:
    """Return the shape of a node's first result, given those of what is before it; None where it is not known."""
    known = [shapes.get(name) or (values[name].shape if name in values else None) for name in node.inputs]
    first = known[0] if known else None
    if first is None and node.op not in _BROADCAST:
        return None
    if node.op in _BROADCAST:
        found = [shape for shape in known if shape is not None]
        return np.broadcast_shapes(*found) if len(found) == len(known) > 0 else None
    assert first is not None
    if node.op in _UNCHANGED:
        return first
    if node.op == "Conv" and len(first) == 4 and len(known) > 1 and known[1] is not None and len(known[1]) == 4:
        return (first[0], known[1][0], *(_slide(node, first[2 + axis], known[1][2 + axis], axis) for axis in (0, 1)))
    if node.op == "AveragePool" and len(first) == 4 and len(kernel := node.integers("kernel_shape", ())) == 2:
        return (*first[:2], *(_slide(node, first[2 + axis], kernel[axis], axis) for axis in (0, 1)))
    if node.op == "Pad" and len(node.inputs) < 4:
        pads = node.integers("pads", ())
        if not pads and len(node.inputs) > 1 and node.inputs[1] in values:
            pads = tuple(int(amount) for amount in values[node.inputs[1]].ravel()[: 2 * len(first)])
        ends = pads[len(first) :]
        return (
            tuple(size + before + after for size, before, after in zip(first, pads, ends, strict=False))
            if len(pads) == 2 * len(first)
            else None
        )
    if node.op == "Concat" and len(known) == len(found := [shape for shape in known if shape is not None]):
        axis = node.integer("axis", 0) % len(first)
        return (*first[:axis], sum(shape[axis] for shape in found), *first[axis + 1 :])
    if node.op == "Resize" and len(node.inputs) > 3 and node.inputs[3] in values:
        return tuple(int(size) for size in values[node.inputs[3]].ravel()[: len(first)])
    if node.op == "GlobalAveragePool":
        return (*first[:2], *(1 for _ in first[2:]))
    if node.op == "Reshape" and len(node.inputs) > 1 and node.inputs[1] in values:
        return _reshape(first, [int(size) for size in values[node.inputs[1]].ravel()[:RANK_LIMIT]])
    order = node.integers("perm", ())
    if node.op == "Transpose" and sorted(order) == list(range(len(first))):
        return tuple(first[axis] for axis in order)
    return None


def _reshape(shape: Shape, sizes: list[int]) -> Shape | None:
    """Return what a shape is brought to; sizes of 0 stay as they are, one of -1 is what is left."""
    found = [shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    rest = math.prod(size for size in found if size != -1)
    if found.count(-1) > 1 or rest <= 0 or min(found, default=0) < -1:
        return None
    return tuple(math.prod(shape) // rest if size == -1 else size for size in found)


def _slide(node: Node, size: int, kernel: int, axis: int) -> int:
    """Return how many places the window of a convolution or a pool has on an axis."""
    strides, dilations = node.integers("strides", (1, 1)), node.integers("dilations", (1, 1))
    pads = node.integers("pads", (0, 0, 0, 0))
    stride, dilation = max(strides[axis], 1), dilations[axis]
    if node.text("auto_pad", "NOTSET").startswith("SAME"):
        return -(-size // stride)
    return (size + pads[axis] + pads[axis + 2] - dilation * (kernel - 1) - 1) // stride + 1
