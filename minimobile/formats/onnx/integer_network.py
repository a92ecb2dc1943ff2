"""From an ONNX graph with scales, spread by `integers.py`, to a network of integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.onnx.arithmetic import BOUNDS
from minimobile.formats.onnx.constants import Constants, read_axes
from minimobile.formats.onnx.integers import DEQUANTIZE, QUANTIZE
from minimobile.formats.onnx.layouts import CHANNELS_LAST, PLAIN
from minimobile.formats.onnx.model import Model, Node
from minimobile.formats.onnx.operators import is_plain_resize
from minimobile.formats.onnx.schema import ElementType
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.validation import check_network
from minimobile_kernels.geometry import pad_amounts

Array = NDArray[Any]
ROUNDING = {np.dtype(np.int8): "onnxruntime", np.dtype(np.uint8): "onnxruntime-uint8"}
"""Whose bytes, by the file's type: sums times a factor of float32, halves to even, as ONNX's operators say."""
_SOFTMAX_OF_ONE_AXIS = 13  # operator sets before take all axes from that one on together
_MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SCORES = ("logistic", "softmax")
_AFTER = (*_MOVES, "Identity", "Softmax", "Sigmoid", "Transpose", "ArgMax", "Cast")


class Scales(NamedTuple):
    """What the bytes of a tensor stand for: scale * (byte - zero); `dtype` is the file's."""

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    dtype: np.dtype[Any]


def to_network(
    model: Model, nodes: Sequence[Node], constants: Constants, picture: str, layout: str, where: str
) -> tuple[Network, dict[str, str]]:
    """Return the checked network of integers of a graph; `layout` says which axis of its picture is which.

    Maps are int8: where the file has uint8, its bytes less 128, which stand for the same; but uint8 where weights of
    that type have zero points other than 128. A tensor of the file that
    differs from another by its type alone is that one: with the network comes {its name: that one's}. Raises
    FormatError, naming the node, for what has no form in integers.
    """
    return _Translator(model, nodes, constants, where).run(picture, layout)


class _Translator:
    def __init__(self, model: Model, nodes: Sequence[Node], constants: Constants, where: str) -> None:
        self.model = model
        self.nodes = nodes
        self.constants = constants
        self.where = where
        self.makers = {node.name: node for node in nodes}
        self.tensors: dict[str, Tensor] = {}
        self.operations: list[Operation] = []
        self.types: dict[str, np.dtype[Any]] = {}  # of maps, in the file
        self.lift = 0 if any(map(self.has_zeros, nodes)) else 128  # what is taken off bytes of uint8

    def run(self, picture: str, layout: str) -> tuple[Network, dict[str, str]]:
        shape = self.constants.shapes.get(picture)
        if shape is None:
            raise FormatError(f"{self.where}: expected an input of a fixed size, found one that is open")
        last_first = tuple(shape[layout.index(letter)] for letter in CHANNELS_LAST)
        self.tensors[picture] = Tensor(picture, last_first, np.dtype(np.float32))
        for node in self.nodes:
            if node.op == QUANTIZE and node.name not in self.constants.values:
                self.quantize(node, picture)
            elif node.inputs and node.inputs[0] in self.tensors and node.op in (*_MOVES, "Resize"):
                self.move(node)
        outputs = tuple(self.add_end(value.name) for value in self.model.outputs)
        if len(outputs) == 2:  # scores after boxes
            made_by = {operation.output: operation for operation in self.operations}
            outputs = tuple(sorted(outputs, key=lambda name: made_by[made_by[name].inputs[0]].op in _SCORES))
        elif len(outputs) != 1:
            raise FormatError(
                f"{self.where}: expected one result of integers, or boxes and scores, found {len(outputs)}"
            )
        tensors = {name: tensor for name, tensor in self.tensors.items() if name == tensor.name}
        network = Network(tensors, tuple(self.operations), (picture,), outputs, self.find_rounding())
        check_network(network, self.where)
        return network, {name: tensor.name for name, tensor in self.tensors.items() if name != tensor.name}

    def has_zeros(self, node: Node) -> bool:
        """Return whether a node gives the numbers of weights of uint8 that have other zero points than 128."""
        steps = self.constants.values.get(node.inputs[0]) if node.op == DEQUANTIZE else None
        return steps is not None and steps.dtype == np.uint8 and bool((self.read_scales(node).zero != 128).any())

    def store(self, dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int]:
        """Return as what the network has bytes of a type of the file, and how much less they are there."""
        shift = self.lift if dtype == np.uint8 else 0
        return (np.dtype(np.int8), shift) if shift else (dtype, 0)

    def find_rounding(self) -> str:
        """Return whose bytes are computed: those of the type that maps have in the file, where that is of interest."""
        found = {self.types[step.output] for step in self.operations if step.op in ("add", "resize_bilinear")}
        found = found or set(self.types.values())
        if len(found) > 1 and any(step.op in ("add", "resize_bilinear") for step in self.operations):
            raise FormatError(f"{self.where}: expected sums of one type, found {' and '.join(sorted(map(str, found)))}")
        return ROUNDING[max(found, key=str)]

    def add_end(self, result: str) -> str:
        """Add what gives the numbers of a result; returns their tensor."""
        end = self.find_end(result)
        stored = self.tensors.get(end.inputs[0])
        if stored is None:
            self.fail(end, "bytes that the network computes", end.inputs[0][:80])
        self.tensors[end.name] = Tensor(end.name, stored.shape, np.dtype(np.float32))
        self.operations.append(Operation("dequantize", (stored.name,), end.name))
        return end.name

    def find_end(self, result: str) -> Node:
        """Return the node that gives the numbers of a result, before what only moves them or makes scores."""
        node = self.makers.get(result)
        while node is not None and node.op in _AFTER:
            node = self.makers.get(node.inputs[0])
        if node is None or node.op != DEQUANTIZE:
            raise FormatError(f"{self.where}: expected a result that comes from bytes, found another")
        return node

    def read_scales(self, node: Node) -> Scales:
        """Return scale and zero point of a QuantizeLinear or DequantizeLinear."""
        scale = self.constants.values.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if scale is None or scale.dtype.kind != "f":
            self.fail(node, "a constant as its scale", "another")
        if node.integer("block_size", 0):
            self.fail(node, "one scale, or one for each channel", "scales of blocks")
        is_signed = node.op == QUANTIZE and node.integer("output_dtype", ElementType.UINT8) == ElementType.INT8
        none = np.zeros(scale.shape, np.int8 if is_signed else np.uint8)
        zero = self.constants.values.get(node.inputs[2]) if len(node.inputs) > 2 else none
        if zero is None or zero.size != scale.size:
            self.fail(node, "a constant as its zero point, one for each scale", "another")
        return Scales(scale.astype(np.float32).ravel(), zero.astype(np.int64).ravel(), zero.dtype)

    def put(self, node: Node, shape: Sequence[int], scales: Scales) -> Tensor:
        """Add the tensor of a map."""
        if scales.dtype not in (np.uint8, np.int8) or scales.scale.size != 1:
            self.fail(node, "maps of uint8 or int8 with one scale", f"{scales.dtype} with {scales.scale.size}")
        dtype, shift = self.store(scales.dtype)
        found = Tensor(node.name, tuple(shape), dtype, scales.scale, scales.zero - shift)
        self.tensors[node.name], self.types[node.name] = found, scales.dtype
        return found

    def quantize(self, node: Node, picture: str) -> None:
        """Add the operation whose result a QuantizeLinear brings to bytes."""
        activation, source = self.skip_limits(self.makers.get(node.inputs[0]), node)
        while source is not None and source.op in ("Transpose", "Identity", "Cast", "Dropout"):
            source = self.makers.get(source.inputs[0])
        if source is None:
            self.put(node, self.tensors[picture].shape, self.read_scales(node))
            self.operations.append(Operation("quantize", (picture,), node.name))
            return
        op = "Move" if source.op in _MOVES else source.op
        if op not in _OPERATIONS:
            known = ", ".join(_OPERATIONS)
            self.fail(source, f"one of the operators that have a form in integers ({known})", source.op)
        _OPERATIONS[op](self, source, node, activation)

    def move(self, node: Node) -> None:
        """Add an operation on bytes themselves, which keep their scale."""
        x = self.tensors[node.inputs[0]]
        if x.dtype == np.float32:
            return  # the picture's own numbers
        resized = _resizing(self, node) if node.op == "Resize" else None
        shape = self.shape(node) if resized else (x.shape[0], int(np.prod(x.shape[1:])))
        self.types[node.name] = self.types[x.name]
        self.tensors[node.name] = Tensor(node.name, shape, x.dtype, x.scales, x.zero_points)
        op = "reshape" if resized is None else "resize_bilinear"
        self.operations.append(Operation(op, (x.name,), node.name, resized or {}))

    def skip_limits(self, source: Node | None, node: Node) -> tuple[str, Node | None]:
        """Return the activation between an operator and its bytes, and the operator."""
        if source is None or source.op not in ("Relu", "Clip"):
            return "linear", source
        limits = [0.0, np.inf]
        for index, name in enumerate(("min", "max") if source.op == "Clip" else ()):
            value = self.constants.values.get(source.inputs[index + 1]) if len(source.inputs) > index + 1 else None
            default = (-np.inf, np.inf)[index]
            limits[index] = source.number(name, default) if value is None else float(value.item())
        function = next((word for word, bounds in BOUNDS.items() if bounds == tuple(limits)), None)
        if function is None:
            self.fail(source, "relu or relu6", f"limits {limits}")
        return function, self.makers.get(source.inputs[0])

    def restored(self, node: Node, index: int) -> Tensor:
        """Return the tensor of bytes that an input of an operator of floats stands for."""
        maker = self.makers.get(node.inputs[index])
        while maker is not None and maker.op in ("Identity", "Dropout", "Transpose"):
            maker = self.makers.get(maker.inputs[0])
        if maker is None or maker.op != DEQUANTIZE or maker.inputs[0] not in self.tensors:
            self.fail(node, "inputs that come from bytes", node.inputs[index][:80])
        return self.tensors[maker.inputs[0]]

    def weights(self, node: Node, order: Sequence[int], axis: int) -> list[str]:
        """Add weight and bias as an operation has them; return their names. `axis` is that of the output channels."""
        maker = self.makers.get(node.inputs[1])
        steps = self.constants.values.get(maker.inputs[0]) if maker is not None and maker.op == DEQUANTIZE else None
        if maker is None or steps is None or steps.dtype not in (np.uint8, np.int8):
            self.fail(node, "a weight of bytes with scales", "another")
        scales = self.read_scales(maker)
        dtype, shift = self.store(steps.dtype)
        values = (steps.astype(np.int64) - shift).astype(dtype).transpose(order)
        name = maker.inputs[0]
        self.tensors[name] = Tensor(
            name, values.shape, values.dtype, scales.scale, scales.zero - shift, axis, np.ascontiguousarray(values)
        )
        if len(node.inputs) < 3 or not node.inputs[2]:
            return [name]
        maker = self.makers.get(node.inputs[2])
        bias = self.constants.values.get(maker.inputs[0]) if maker is not None and maker.op == DEQUANTIZE else None
        if maker is None or bias is None or bias.dtype != np.int32:
            self.fail(node, "a bias of int32 with scales", "another")
        by = self.constants.values[maker.inputs[1]].astype(np.float32).ravel()
        label = maker.inputs[0]
        plain = np.ascontiguousarray(bias).ravel()
        self.tensors[label] = Tensor(label, plain.shape, plain.dtype, by, np.zeros(by.shape, np.int64), 0, plain)
        return [name, label]

    def pad(self, node: Node, x: Tensor, kernel: Sequence[int], stride: int, dilation: int) -> tuple[str, str]:
        """Return the map that a convolution sees, and its padding: SAME or VALID; other zeros are an operation."""
        rule = node.text("auto_pad", "NOTSET")
        if rule in ("SAME_UPPER", "VALID"):
            return x.name, rule.removesuffix("_UPPER")
        top, left, bottom, right = node.integers("pads", (0, 0, 0, 0))
        amounts = ((top, bottom), (left, right))
        same = tuple(pad_amounts(x.shape[1 + axis], kernel[axis], stride, dilation, "SAME") for axis in (0, 1))
        if amounts == ((0, 0), (0, 0)):
            return x.name, "VALID"
        if amounts == same:
            return x.name, "SAME"
        name = f"{node.name}/padded"
        shape = (x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
        self.tensors[name] = dataclasses.replace(x, name=name, shape=shape)
        self.operations.append(Operation("pad", (x.name,), name, {"padding": ((0, 0), *amounts, (0, 0))}))
        return name, "VALID"

    def add(self, op: str, inputs: Sequence[str], node: Node, shape: Sequence[int], **attributes: Any) -> None:
        """Add an operation, and the tensor that it fills."""
        self.put(node, shape, self.read_scales(node))
        self.operations.append(Operation(op, tuple(inputs), node.name, attributes))

    def shape(self, node: Node) -> tuple[int, ...]:
        """Return the shape of a node's result, channels last."""
        found = self.constants.shapes.get(node.name)
        if found is None:
            self.fail(node, "a result of a known size", "another")
        return tuple(found[PLAIN.index(letter)] for letter in CHANNELS_LAST) if len(found) == 4 else found

    def fail(self, node: Node, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: node {node.title} ({node.op}): expected {expected}, found {found}")


def _add_convolution(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x = self.restored(source, 0)
    group = source.integer("group", 1)
    order, axis = ((1, 2, 3, 0), 3) if group > 1 else ((0, 2, 3, 1), 0)
    names = self.weights(source, order, axis)
    strides, dilations = source.integers("strides", (1, 1)), source.integers("dilations", (1, 1))
    if len(set(strides)) > 1 or len(set(dilations)) > 1:
        self.fail(source, "one stride and dilation for both axes", f"{strides} and {dilations}")
    kernel = source.integers("kernel_shape", ()) or self.constants.values[source.inputs[1]].shape[2:]
    name, padding = self.pad(source, x, kernel, strides[0], dilations[0])
    self.add(
        "depthwise_conv2d" if group > 1 else "conv2d", [name, *names], node, self.shape(source),
        stride=strides[0], dilation=dilations[0], padding=padding, activation=activation,
    )  # fmt: skip


def _add_dense(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x = self.restored(source, 0)
    is_transposed = source.op == "Gemm" and source.integer("transB", 0)
    names = self.weights(source, (0, 1) if is_transposed else (1, 0), 0)
    rows = (x.shape[0], self.tensors[names[0]].shape[0])
    self.add("fully_connected", [x.name, *names], node, rows, activation=activation, keep_num_dims=False)


def _add_sum(self: _Translator, source: Node, node: Node, activation: str) -> None:
    left, right = (self.restored(source, index) for index in (0, 1))
    self.add("add", [left.name, right.name], node, left.shape, activation=activation)


def _add_mean(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x = self.restored(source, 0)
    if source.op == "ReduceMean" and sorted(
        axis % 4 for axis in read_axes(source, self.constants.values.get(source.inputs[-1])) or ()
    ) != [2, 3]:
        self.fail(source, "a mean over height and width", "another")
    keeps = bool(source.op != "ReduceMean" or source.integer("keepdims", 1))
    shape = (x.shape[0], 1, 1, x.shape[3]) if keeps else (x.shape[0], x.shape[3])
    if source.op == "AveragePool":
        if source.integers("kernel_shape", ()) != x.shape[1:3]:
            self.fail(source, f"a window over the whole map ({x.shape[1]} x {x.shape[2]})", "a smaller one")
        out = self.put(node, shape, self.read_scales(node))
        if (x.scale, x.zero) == (out.scale, out.zero):  # as LiteRT has it, whose bytes can be asked for
            window = {"kernel_size": x.shape[1:3], "stride": 1, "padding": "VALID", "activation": "linear"}
            self.operations.append(Operation("average_pool2d", (x.name,), node.name, window))
            return
    self.add("mean", [x.name], node, shape, axes=(1, 2), keep_dims=keeps)


def _add_move(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x, shape = self.restored(source, 0), self.constants.shapes.get(source.name, ())
    rows = shape if len(shape) == 3 else (x.shape[0], int(np.prod(x.shape[1:])))  # predictions, or a row
    self.add("reshape", [x.name], node, rows)


def _add_change(self: _Translator, source: Node, node: Node, activation: str) -> None:
    """Bring bytes to another grid; where it differs by the type alone, the tensor is the same by another name."""
    x, numbers = self.restored(node, 0), f"{node.name}/numbers"
    out = self.put(node, x.shape, self.read_scales(node))
    if (x.scale, x.zero) == (out.scale, out.zero):
        self.tensors[node.name] = x
        return
    self.tensors[numbers] = Tensor(numbers, x.shape, np.dtype(np.float32))
    self.operations += [Operation("dequantize", (x.name,), numbers), Operation("quantize", (numbers,), node.name)]


def _add_scores(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x = self.restored(source, 0)
    self.add("logistic", [x.name], node, x.shape)


def _add_softmax(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x, is_modern = self.restored(source, 0), self.model.opset >= _SOFTMAX_OF_ONE_AXIS
    rank = len(x.shape)
    axis, channels = source.integer("axis", -1 if is_modern else 1), 1 if rank == 4 else rank - 1
    is_pixel = rank == 4 and x.shape[1:3] == (1, 1)
    if axis % rank != channels or not (is_modern or rank < 4 or is_pixel):
        self.fail(source, "a softmax over the channels", f"axis {axis} of {rank}")
    self.add("softmax", [x.name], node, x.shape, beta=1.0)


def _add_pad(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x, given = self.restored(source, 0), source.integers("pads", ())
    amounts = given or tuple(int(amount) for amount in self.constants.values[source.inputs[1]].ravel()[:8])
    if len(amounts) != 8 or len(source.inputs) > 3:
        self.fail(source, "two amounts for each of four axes", f"{amounts}")
    padding = tuple((amounts[axis], amounts[axis + 4]) for axis in map(PLAIN.index, CHANNELS_LAST))
    self.add("pad", [x.name], node, self.shape(source), padding=padding)


def _resizing(self: _Translator, source: Node) -> dict[str, bool]:
    """Return the attributes of a bilinear resize."""
    rule = source.text("coordinate_transformation_mode", "half_pixel")
    is_known = rule in ("align_corners", "half_pixel", "asymmetric") and is_plain_resize(source, rule)
    if source.text("mode", "nearest") != "linear" or not is_known:
        self.fail(source, "a bilinear resize", f"{source.text('mode', 'nearest')[:40]}, {rule[:40]}")
    return {"align_corners": rule == "align_corners", "half_pixel_centers": rule == "half_pixel"}


def _add_resize(self: _Translator, source: Node, node: Node, activation: str) -> None:
    x = self.restored(source, 0)
    self.add("resize_bilinear", [x.name], node, self.shape(source), **_resizing(self, source))


def _add_concatenation(self: _Translator, source: Node, node: Node, activation: str) -> None:
    scales = self.read_scales(node)
    names = []
    for index in range(len(source.inputs)):
        x = self.restored(source, index)
        zero = int(scales.zero[0]) - self.store(scales.dtype)[1]
        if x.scale != scales.scale[0] or x.zero != zero:
            numbers, name = f"{node.name}/{index}/numbers", f"{node.name}/{index}"
            self.tensors[numbers] = Tensor(numbers, x.shape, np.dtype(np.float32))
            self.tensors[name] = Tensor(name, x.shape, x.dtype, scales.scale, np.array([zero]))
            self.operations += [Operation("dequantize", (x.name,), numbers), Operation("quantize", (numbers,), name)]
        names.append(x.name if x.scale == scales.scale[0] and x.zero == zero else name)
    rank = len(x.shape)
    axis = source.integer("axis", 1) % max(rank, 1)
    axis = CHANNELS_LAST.index(PLAIN[axis]) if rank == 4 else axis
    total = sum(self.tensors[name].shape[axis] for name in names)
    shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
    self.add("concatenate", names, node, shape, axis=axis, activation=activation)


_OPERATIONS: Mapping[str, Callable[[_Translator, Node, Node, str], None]] = {
    "Conv": _add_convolution,
    "Gemm": _add_dense,
    "MatMul": _add_dense,
    "Add": _add_sum,
    "AveragePool": _add_mean,
    "GlobalAveragePool": _add_mean,
    "ReduceMean": _add_mean,
    "Concat": _add_concatenation,
    "Resize": _add_resize,
    "Pad": _add_pad,
    "Move": _add_move,
    "Sigmoid": _add_scores,
    "Softmax": _add_softmax,
    DEQUANTIZE: _add_change,
}
