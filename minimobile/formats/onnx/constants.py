"""What an ONNX graph computes from its constants alone: sizes, paddings and the like, as exporters spell them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.onnx.model import Model, Node
from minimobile.formats.onnx.schema import ARRAY_TYPES, ElementType
from minimobile.formats.onnx.shapes import infer_shape
from minimobile.formats.onnx.tensors import Tensor
from minimobile.storage.files import SPARE_BYTES

Array = NDArray[Any]
IDENTITIES = frozenset({"Identity", "Dropout"})
"""Operations whose first result is their first input."""
RANK_LIMIT = 8


class Constants:
    """The constants of a graph and what follows from them, by tensor name: what NumPy computes as ONNX says.

    The sizes of maps are among them, where the picture's are not open.
    """

    def __init__(self, model: Model, nodes: Iterable[Node]) -> None:
        """Take nodes in the order of computation."""
        self.values: dict[str, Array] = {
            name: tensor.values for name, tensor in model.constants.items() if tensor.values is not None
        }
        self._origins: dict[str, str] = {}
        # Where only the number of pictures is open, sizes are those for one.
        sizes = {value.name: (max(value.shape[0], 1), *value.shape[1:]) for value in model.inputs if value.shape}
        self.shapes = {name: shape for name, shape in sizes.items() if min(shape) > 0}
        spare = 2 * model.size + SPARE_BYTES // 2  # bytes: a file may have one number stand for many
        for node in nodes:
            if node.op in IDENTITIES and node.inputs:
                self._origins[node.name] = self.find_origin(node.inputs[0])
            values = self._compute(node, model.opset, spare)
            if values is None:
                shape = self._infer(node)
                self.shapes |= {} if shape is None else {node.name: shape}
                continue
            self.values[node.name] = values
            inputs = (self.values.get(name) for name in node.inputs)
            is_view = any(array is not None and np.may_share_memory(values, array) for array in inputs)
            spare -= 0 if is_view else values.nbytes

    def find_origin(self, tensor: str) -> str:
        """Return the tensor that `tensor` is a copy of: the one before all identities."""
        return self._origins.get(tensor, tensor)

    def _infer(self, node: Node) -> tuple[int, ...] | None:
        try:
            return infer_shape(node, self.shapes, self.values)
        except (ValueError, IndexError):  # refused where the node is translated
            return None

    def _compute(self, node: Node, opset: int, spare: int) -> Array | None:
        if node.op == "Constant":
            return _read_constant(node)
        if node.op == "Shape" and node.inputs and node.inputs[0] in self.shapes:
            shape = np.array(self.shapes[node.inputs[0]], np.int64)
            return shape[node.integer("start", 0) : node.integer("end", len(shape))]
        compute = _FOLDS.get(node.op)
        given = node.inputs[:1] if node.op == "CastLike" else node.inputs  # the type of a map is of no interest
        inputs = [self.values[name] if name else None for name in given if not name or name in self.values]
        if compute is None or not inputs or len(inputs) != len(given) or inputs[0] is None:
            return None
        count = _measure(node, inputs)
        if count > max(spare, 0):
            raise FormatError(
                f"{node.where}: node {node.title} ({node.op}): expected constants about as large as the file, found "
                "values that are repeated or computed far beyond it"
            )
        try:
            with np.errstate(all="ignore"):
                return np.asarray(compute(node, opset, *inputs))
        except (ValueError, TypeError, OverflowError, LookupError, AttributeError):
            shapes = " and ".join(str(None if array is None else array.shape) for array in inputs[:5])
            raise FormatError(f"{node.where}: node {node.title} ({node.op}): cannot be applied to {shapes}") from None


def _measure(node: Node, inputs: list[Array | None]) -> int:
    """Return at least as many bytes as the result of a node takes, before it is computed."""
    arrays = [array for array in inputs if array is not None]
    width = max(8, *(array.itemsize for array in arrays))
    if node.op == "ConstantOfShape":
        return width * _count(arrays[0])
    if node.op == "Expand":
        return width * _count(arrays[1]) * max(arrays[0].size, 1) if len(arrays) > 1 else 0
    if node.op == "Gather" and len(arrays) == 2:
        return width * arrays[0].size * max(arrays[1].size, 1)
    if node.op in _ELEMENTWISE:
        try:
            return width * math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
        except ValueError:
            return 0
    return width * sum(array.size for array in arrays)


def _count(shape: Array) -> int:
    """Return how many values a shape has, were there one for each."""
    return math.prod(max(int(size), 1) for size in shape.ravel()[:RANK_LIMIT])


def _read_constant(node: Node) -> Array | None:
    """Return the value of a Constant, which has one of several attributes."""
    for name, value in node.attributes.items():
        if isinstance(value, Tensor):
            return value.values
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def read_axes(node: Node, given: Array | None) -> tuple[int, ...] | None:
    """Return the axes of an operation that has them as an input in newer operator sets, as an attribute in older."""
    if given is not None:
        return tuple(int(axis) for axis in given.ravel()[:RANK_LIMIT])
    axes = node.integers("axes", ())
    return axes[:RANK_LIMIT] if axes else None


def _reshape(node: Node, opset: int, array: Array, shape: Array | None = None) -> Array:
    sizes = node.integers("shape", ()) if shape is None else tuple(int(size) for size in shape.ravel()[:RANK_LIMIT])
    if not node.integer("allowzero", 0):
        sizes = tuple(array.shape[axis] if size == 0 else size for axis, size in enumerate(sizes))
    return array.reshape(sizes)


def _squeeze(node: Node, opset: int, array: Array, axes: Array | None = None) -> Array:
    return array.squeeze(read_axes(node, axes))


def _unsqueeze(node: Node, opset: int, array: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(array, read_axes(node, axes) or ())


def _transpose(node: Node, opset: int, array: Array) -> Array:
    return array.transpose(node.integers("perm", ()) or None)


def _shape(node: Node, opset: int, array: Array) -> Array:
    end = node.integer("end", array.ndim)
    return np.array(array.shape[node.integer("start", 0) : end], np.int64)


def _fill(node: Node, opset: int, shape: Array) -> Array:
    value = node.attributes.get("value")
    filler = value.values.ravel()[0] if isinstance(value, Tensor) and value.values is not None else np.float32(0)
    return np.full([int(size) for size in shape.ravel()[:RANK_LIMIT]], filler)


def _expand(node: Node, opset: int, array: Array, shape: Array) -> Array:
    sizes = tuple(int(size) for size in shape.ravel()[:RANK_LIMIT])
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, sizes))


def _slice(
    node: Node, opset: int, array: Array, starts: Array | None = None, ends: Array | None = None,
    axes: Array | None = None, steps: Array | None = None,
) -> Array:  # fmt: skip
    begins = node.integers("starts", ()) if starts is None else starts.ravel().tolist()
    stops = node.integers("ends", ()) if ends is None else ends.ravel().tolist()
    along = read_axes(node, axes) or tuple(range(len(begins)))
    strides = [1] * len(begins) if steps is None else steps.ravel().tolist()
    cuts = [slice(None)] * array.ndim
    for axis, begin, stop, stride in zip(along, begins, stops, strides, strict=True):
        is_whole = stride < 0 and stop < -array.shape[axis]  # down to the first
        cuts[axis] = slice(begin, None if is_whole else stop, stride)
    cut: Array = array[tuple(cuts)]
    return cut


def _concatenate(node: Node, opset: int, *arrays: Array) -> Array:
    return np.concatenate(arrays, node.integer("axis", 0))


def _gather(node: Node, opset: int, array: Array, indices: Array) -> Array:
    return np.asarray(np.take(array, indices, node.integer("axis", 0)))


def _cast(node: Node, opset: int, array: Array) -> Array:
    number = node.integer("to", 0)
    if number == ElementType.BFLOAT16:
        return array.astype(np.float32)
    return array.astype(ARRAY_TYPES[ElementType(number)])


def _divide(left: Array, right: Array) -> Array:
    """Divide; integers towards zero, as ONNX does."""
    if left.dtype.kind not in "iu":
        return np.asarray(np.divide(left, right))
    if not np.all(right):
        raise ValueError("a division by zero")
    quotient: Array = np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right))
    return quotient.astype(left.dtype)


def _dequantize(node: Node, opset: int, array: Array, scale: Array, zero: Array | None = None) -> Array:
    """Return (x - zero point) * scale: exact but for one rounding."""
    axis = node.integer("axis", 1)
    if node.integer("block_size", 0):
        raise ValueError("scales of blocks, which no MobileNet has")
    by = [1] * array.ndim
    if scale.size > 1:
        by[axis] = scale.size
    steps = array.astype(np.int64)
    if zero is not None:
        steps = steps - zero.astype(np.int64).reshape(by if zero.size > 1 else ())
    factor = scale.astype(np.float64).reshape(by if scale.size > 1 else ())
    return (steps * factor).astype(np.float32)


_ELEMENTWISE: Mapping[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Mod": np.mod,
}
_FOLDS: Mapping[str, Callable[..., Array]] = {
    **dict.fromkeys((*IDENTITIES, "CastLike"), lambda node, opset, array, *others: array),
    "Cast": _cast,
    "Concat": _concatenate,
    "ConstantOfShape": _fill,
    "DequantizeLinear": _dequantize,
    "Expand": _expand,
    "Gather": _gather,
    "Neg": lambda node, opset, array: np.negative(array),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Sqrt": lambda node, opset, array: np.sqrt(array),
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    **{op: (lambda node, opset, left, right, function=function: function(left, right))
       for op, function in _ELEMENTWISE.items()},
}  # fmt: skip
"""Operation -> its value for (node, operator set, *inputs)."""
