"""What a frozen graph computes from its constants alone: values by NumPy, and batch norm's arithmetic recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.tensorflow.graph_def import GraphNode
from minimobile.operations.fake_quantization import FakeQuantization
from minimobile.storage.files import SPARE_BYTES

IDENTITIES = frozenset(
    {"Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "PlaceholderWithDefault"}
)
"""Operations whose result is their first input."""


class BatchNorm(NamedTuple):
    """Batch norm written out as arithmetic: the tensors that hold its parts (None where it has none), and epsilon."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float


class Constants:
    """The constants of a graph and what follows from them, by tensor name.

    `values` has what NumPy can compute. A FakeQuantWithMinMaxVars of a constant changes nothing in `values`; what it
    would do is in `quantizations`.
    """

    def __init__(self, nodes: Iterable[GraphNode], size: int) -> None:
        """Take nodes in the order of computation, from a file of `size` bytes."""
        self.values: dict[str, NDArray[Any]] = {}
        self.quantizations: dict[str, FakeQuantization] = {}
        self._nodes: dict[str, GraphNode] = {}
        self._origins: dict[str, str] = {}
        spare = 2 * size + SPARE_BYTES // 2  # bytes: the file may have one number stand for many
        for node in nodes:
            self._nodes[node.name] = node
            if node.op in IDENTITIES and node.inputs:
                self._origins[node.name] = self.find_origin(node.inputs[0])
            inputs = [self.values.get(name) for name in node.inputs]
            values = self._compute(node, inputs)
            if values is None:
                continue
            self.values[node.name] = values
            is_view = any(array is not None and np.may_share_memory(values, array) for array in inputs)
            spare -= 0 if is_view else values.nbytes
            if spare < 0:
                raise FormatError(
                    f"{node.where}: node {node.name}: expected constants about as large as the file, found values that "
                    "are repeated or computed far beyond it"
                )

    def find_origin(self, tensor: str) -> str:
        """Return the tensor that `tensor` is a copy of: the one before all identities."""
        return self._origins.get(tensor, tensor)

    def find_batch_norm(self, scale: str, offset: str) -> BatchNorm | None:
        """Recognise `x * scale + offset` as batch norm; None where it is not written as TensorFlow writes it.

        scale = rsqrt(variance + epsilon) * gamma, offset = beta - mean * scale; without gamma or beta also. Source:
        `tf.nn.batch_normalization`.
        """
        inner = self._match_scale(scale)
        outer = self._match_offset(offset, scale)
        if inner is None or outer is None:
            return None
        (weight, variance, epsilon), (bias, mean) = inner, outer
        return BatchNorm(weight, bias, mean, variance, epsilon)

    def find_factors(self, weight: str) -> tuple[str, str] | None:
        """Return the convolution's weight and the batch norm's scale whose product a folded weight is.

        Source: `tf.contrib.quantize`, which folds in the graph itself and rounds the product.
        """
        node = self._nodes.get(self.find_origin(weight))
        if node is not None and node.op == "FakeQuantWithMinMaxVars":
            weight = node.inputs[0]
        for plain, factor in self._operands(weight, "Mul"):
            flat = next((tensor for tensor, _ in self._operands(factor or "", "Reshape")), factor or "")
            if self._match_scale(flat) is not None:
                return plain, flat
        return None

    def _match_scale(self, scale: str) -> tuple[str | None, str, float] | None:
        """Return gamma, variance, epsilon."""
        for root, gamma in [(scale, None), *self._operands(scale, "Mul")]:
            for total, _ in self._operands(root, "Rsqrt"):
                for variance, epsilon in self._operands(total, "Add", "AddV2"):
                    value = None if epsilon is None else self.values.get(epsilon)
                    if value is not None and value.size == 1 and self.values[variance].ndim == 1:
                        with np.errstate(over="ignore"):
                            return gamma, variance, float(str(np.float32(value.item())))
        return None

    def _match_offset(self, offset: str, scale: str) -> tuple[str | None, str] | None:
        """Return beta, mean."""
        scale = self.find_origin(scale)
        for beta, product in self._operands(offset, "Sub")[:1]:
            for mean, other in self._operands(product or "", "Mul"):
                if other == scale:
                    return beta, mean
        for negative, other in self._operands(offset, "Mul"):
            for mean, _ in self._operands(negative, "Neg"):
                if other == scale:
                    return None, mean
        return None

    def _operands(self, tensor: str, *ops: str) -> list[tuple[str, str | None]]:
        """Return (one operand, the other) both ways round where `tensor` is the constant result of one of `ops`."""
        node = self._nodes.get(self.find_origin(tensor))
        if node is None or node.op not in ops or node.name not in self.values:
            return []
        names = [self.find_origin(name) for name in node.inputs]
        return [(names[0], None)] if len(names) == 1 else [(names[0], names[1]), (names[1], names[0])]

    def _compute(self, node: GraphNode, inputs: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        if node.op == "Const":
            return node.tensor("value").values
        arrays = [array for array in inputs if array is not None]
        if not arrays or len(arrays) != len(inputs):
            return None
        if node.op in IDENTITIES:
            return arrays[0]
        if node.op == "FakeQuantWithMinMaxVars":
            self.quantizations[node.name] = read_fake_quantization(node, self.values)
            return arrays[0]
        count, compute = _FOLDS.get(node.op, (0, None))
        if compute is None or len(arrays) != count:
            return None
        if count == 2 and node.op in _ELEMENTWISE:
            _check_elementwise(node, *arrays)
        try:
            with np.errstate(all="ignore"):
                return np.asarray(compute(node, *arrays))
        except (ValueError, TypeError, OverflowError):
            shapes = " and ".join(str(array.shape) for array in arrays)
            raise FormatError(f"{node.where}: node {node.name} ({node.op}): cannot be applied to {shapes}") from None


def read_fake_quantization(node: GraphNode, values: Mapping[str, NDArray[Any]]) -> FakeQuantization:
    """Return what a FakeQuantWithMinMaxVars node does."""
    limits = [values[name] for name in node.inputs[1:] if name in values and values[name].size == 1]
    if len(limits) != 2 or len(node.inputs) != 3:
        raise FormatError(
            f"{node.where}: node {node.name} ({node.op}): expected constants for the smallest and the largest value"
        )
    minimum, maximum = (float(limit.item()) for limit in limits)
    return FakeQuantization(minimum, maximum, node.integer("num_bits", 8), node.flag("narrow_range", False))


def _check_elementwise(node: GraphNode, left: NDArray[Any], right: NDArray[Any]) -> None:
    """Refuse results larger than the larger operand, before memory is taken: nothing here needs an outer product."""
    try:
        shape = np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        shape = ()
    if left.dtype != right.dtype or shape not in (left.shape, right.shape):
        raise FormatError(
            f"{node.where}: node {node.name} ({node.op}): expected operands of one type and fitting shapes, found "
            f"{left.dtype} {left.shape} and {right.dtype} {right.shape}"
        )


def _reshape(node: GraphNode, array: NDArray[Any], shape: NDArray[Any]) -> NDArray[Any]:
    return array.reshape([int(size) for size in shape.ravel()[:8]])


def _expand(node: GraphNode, array: NDArray[Any], axis: NDArray[Any]) -> NDArray[Any]:
    return np.expand_dims(array, int(axis.item()))


def _squeeze(node: GraphNode, array: NDArray[Any]) -> NDArray[Any]:
    return array.squeeze(node.integers("squeeze_dims", ()) or None)


def _reciprocal_root(node: GraphNode, array: NDArray[Any]) -> NDArray[Any]:
    """Round once: 1 / sqrt(x) in single precision would round twice."""
    return (1 / np.sqrt(array.astype(np.float64))).astype(array.dtype)


_ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "RealDiv": np.divide,
}
# Operation -> how many inputs it has, and its value for (node, *inputs).
_FOLDS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "Rsqrt": (1, _reciprocal_root),
    "Neg": (1, lambda node, array: np.negative(array)),
    "Reshape": (2, _reshape),
    "ExpandDims": (2, _expand),
    "Squeeze": (1, _squeeze),
    **{op: (2, lambda node, left, right, function=function: function(left, right))
       for op, function in _ELEMENTWISE.items()},
}  # fmt: skip
