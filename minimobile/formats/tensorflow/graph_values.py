"""The value of a tensor that a graph computes from constants alone, such as a detector's anchors: by NumPy, in float32.

Only what makes grids of numbers is computed, and every result is measured before memory is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.tensorflow.graph_constants import IDENTITIES
from minimobile.formats.tensorflow.graph_def import GraphNode, find_node_name

Values = NDArray[Any]
ELEMENT_LIMIT = 2**20  # of one value; the anchors of a picture of 640 x 640 have 93,000 numbers
TOTAL_LIMIT = 2**24  # of all values together


def evaluate(nodes: Mapping[str, GraphNode], tensor: str, where: str) -> Values:
    """Return the value of `tensor`; `nodes` are by name.

    Raises FormatError, naming the node, for what is not computed from constants, operations beyond those of grids, and
    values of more than `ELEMENT_LIMIT` numbers.
    """
    found: dict[str, Values] = {}
    path = {find_node_name(tensor): None}  # in its order, a stack
    spare = TOTAL_LIMIT
    while path:
        name = next(reversed(path))
        node = nodes[name]
        sources = [find_node_name(source) for source in node.inputs]
        missing = next((source for source in sources if source not in found), None)
        if missing in path:
            raise FormatError(f"{where}: node {missing}: expected a value computed from constants, found a cycle")
        if missing is not None:
            path[missing] = None
            continue
        found[name] = _compute(node, [found[source] for source in sources], where)
        spare -= found[name].size
        if spare < 0:
            raise FormatError(
                f"{where}: node {name}: expected at most {TOTAL_LIMIT} numbers on the way to {tensor}, found more"
            )
        del path[name]
    return found[find_node_name(tensor)]


def _compute(node: GraphNode, inputs: list[Values], where: str) -> Values:
    if node.op == "Const":
        values = node.tensor("value").values
        if values is None:
            raise FormatError(f"{where}: node {node.name}: expected numbers, found another constant")
        _measure(node, values.shape, where)
        return values
    if node.op in IDENTITIES and inputs:
        return inputs[0]
    compute = _OPERATIONS.get(node.op)
    if compute is None or not inputs:
        raise FormatError(f"{where}: node {node.name}: expected a value computed from constants, found {node.op}")
    try:
        with np.errstate(all="ignore"):
            return np.asarray(compute(node, where, *inputs))
    except FormatError:  # a ValueError, too
        raise
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError):
        shapes = " and ".join(str(values.shape) for values in inputs)
        raise FormatError(f"{where}: node {node.name} ({node.op}): cannot be applied to {shapes}") from None


def _measure(node: GraphNode, shape: Any, where: str) -> None:
    if math.prod(int(size) for size in shape) > ELEMENT_LIMIT:
        raise FormatError(f"{where}: node {node.name}: expected at most {ELEMENT_LIMIT} numbers, found more")


def _sizes(values: Values) -> list[int]:
    return [int(size) for size in values.ravel()[:8]]


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(node: GraphNode, where: str, left: Values, right: Values) -> Any:
        if left.dtype != right.dtype:
            raise ValueError("operands of two types")
        _measure(node, np.broadcast_shapes(left.shape, right.shape), where)
        return function(left, right)

    return compute


def _range(node: GraphNode, where: str, start: Values, limit: Values, delta: Values) -> Any:
    first, end, step = (values.item() for values in (start, limit, delta))
    _measure(node, (math.ceil((end - first) / step),), where)
    return np.arange(first, end, step, dtype=start.dtype)


def _fill(node: GraphNode, where: str, shape: Values, value: Values) -> Any:
    _measure(node, _sizes(shape), where)
    return np.full(_sizes(shape), value.item(), value.dtype)


def _tile(node: GraphNode, where: str, values: Values, multiples: Values) -> Any:
    _measure(node, (values.size, *_sizes(multiples)), where)
    return np.tile(values, _sizes(multiples))


def _join(node: GraphNode, where: str, *inputs: Values) -> Any:
    _measure(node, (sum(values.size for values in inputs),), where)
    return np.concatenate(inputs[:-1], int(inputs[-1].item()))


def _pack(node: GraphNode, where: str, *inputs: Values) -> Any:
    _measure(node, (sum(values.size for values in inputs),), where)
    return np.stack(inputs, node.integer("axis", 0))


def _slice(node: GraphNode, where: str, values: Values, begin: Values, size: Values) -> Any:
    parts = zip(_sizes(begin), _sizes(size), strict=True)
    return values[tuple(slice(first, None if count < 0 else first + count) for first, count in parts)]


def _strided_slice(node: GraphNode, where: str, values: Values, begin: Values, end: Values, strides: Values) -> Any:
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")
    if values.ndim != 1 or len(begin) != 1 or any(node.integer(name, 0) for name in masks):
        raise ValueError("more than one axis")
    part = values[slice(int(begin[0]), int(end[0]), int(strides[0]))]
    return part[0] if node.integer("shrink_axis_mask", 0) else part


_CASTS = {"float32": np.float32, "int32": np.int32, "int64": np.int64}


def _cast(node: GraphNode, where: str, values: Values) -> Any:
    return values.astype(_CASTS.get(node.text("DstT", ""), np.float32))


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("Add", "AddV2"), _elementwise(np.add)),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "RealDiv": _elementwise(np.divide),
    "Minimum": _elementwise(np.minimum),
    "Maximum": _elementwise(np.maximum),
    "Sqrt": lambda node, where, values: np.sqrt(values),
    "Cast": _cast,
    "Range": _range,
    "Fill": _fill,
    "Tile": _tile,
    "ConcatV2": _join,
    "Pack": _pack,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "Reshape": lambda node, where, values, shape: values.reshape(_sizes(shape)),
    "ExpandDims": lambda node, where, values, axis: np.expand_dims(values, int(axis.item())),
    "Squeeze": lambda node, where, values: values.squeeze(node.integers("squeeze_dims", ()) or None),
}
