"""From a TFLite file's tensors and operators to a quantised network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.tflite.tflite_dequantized import MOVED_BYTES, WEIGHTED
from minimobile.formats.tflite.tflite_model import ABSENT, Model, Operator
from minimobile.formats.tflite.tflite_schema import ARRAY_TYPES
from minimobile.networks.graph import sweep_back
from minimobile.quantized.network import Network, Operation, Tensor, shorten
from minimobile.quantized.validation import check_network

Options = Mapping[str, Any]


def name_tensors(model: Model) -> Model:
    """Return the model with a name for every tensor that no other has."""
    taken: set[str] = set()
    tensors = []
    for number, tensor in enumerate(model.tensors):
        name = tensor.name or f"tensor {number}"
        while name in taken:
            name = f"{name}#{number}"
        taken.add(name)
        tensors.append(dataclasses.replace(tensor, name=name))
    return dataclasses.replace(model, tensors=tuple(tensors))


def to_network(model: Model, where: str) -> Network:
    """Return the checked network of a file whose tensors have names of their own (`name_tensors`).

    An operator that we do not have is named in a FormatError, as is what a kernel could not rely on.
    """
    return _Translator(model, where).run()


class _Translator:
    def __init__(self, model: Model, where: str) -> None:
        self.model = model
        self.where = where
        self.tensors: dict[str, Tensor] = {}

    def run(self) -> Network:
        operations: list[Operation] = []
        for operator in _needed(self.model):
            operations += self.translate(operator)
        inputs, outputs = (
            tuple(self.tensor(number).name for number in numbers) for numbers in (self.model.inputs, self.model.outputs)
        )
        network = Network(self.tensors, tuple(operations), inputs, outputs)
        source = self.model.tensors[self.model.inputs[0]]
        if {1, 2} & set(source.open_sizes):
            raise FormatError(f"{self.where}: expected an input of a fixed size, found one that is open")
        check_network(network, self.where)
        return network

    def tensor(self, number: int) -> Tensor:
        """Return a tensor of the network by its number in the file."""
        found = self.model.tensors[number]
        if found.name not in self.tensors:
            if found.dtype not in ARRAY_TYPES or (found.is_constant and found.data is None):
                raise FormatError(
                    f"{self.where}: expected {shorten(found.name)} of a type for numbers, found {found.dtype}"
                )
            by = found.quantization
            self.tensors[found.name] = Tensor(
                found.name,
                found.shape,
                np.dtype(found.dtype),
                np.zeros(0, np.float32) if by is None else by.scales.astype(np.float32),
                np.zeros(0, np.int64) if by is None else by.zero_points.astype(np.int64),
                0 if by is None else by.dimension,
                found.data,
            )
        return self.tensors[found.name]

    def translate(self, operator: Operator) -> list[Operation]:
        kind, out = operator.kind, self.tensor(operator.outputs[0])
        if kind not in _OPERATIONS:
            known = ", ".join(_OPERATIONS)
            self.fail(operator, f"one of the operators that a quantised MobileNet is made of ({known})", kind)
        op, read, count = _OPERATIONS[kind]
        numbers = [number for number in operator.inputs if number != ABSENT]
        inputs = [self.tensor(number) for number in numbers[:count]]
        for tensor in (*inputs[:1], out):
            if kind not in MOVED_BYTES and tensor.dtype in (np.float32, np.float16, np.int16):
                weight = f", beside weights of {inputs[1].dtype}" if kind in WEIGHTED else ""
                self.fail(operator, "maps of uint8 or int8", f"{shorten(tensor.name)} of {tensor.dtype}{weight}")
        attributes = read(self, operator)
        operations: list[Operation] = []
        if op == "fully_connected" and inputs[0].shape[-1:] != inputs[1].shape[-1:]:
            operations, inputs[0] = self.flatten(operator, inputs[0], inputs[1])
        return [*operations, Operation(op, tuple(tensor.name for tensor in inputs), out.name, attributes)]

    def flatten(self, operator: Operator, x: Tensor, weight: Tensor) -> tuple[list[Operation], Tensor]:
        """Return the reshape that makes rows, as long as the weight's, of a map."""
        size = int(np.prod(x.shape, dtype=np.int64))
        length = weight.shape[-1] if weight.shape else 0
        if length < 1 or size % length:
            self.fail(operator, f"a weight for a map of {size} values", f"{weight.shape}")
        name = f"{x.name} in rows of {length}"
        rows = dataclasses.replace(x, name=name, shape=(size // length, length))
        is_new = name not in self.tensors
        self.tensors[name] = rows
        return [Operation("reshape", (x.name,), name)] if is_new else [], rows

    def fail(self, operator: Operator, expected: str, found: str) -> None:
        name = shorten(self.model.tensors[operator.outputs[0]].name)
        raise FormatError(f"{self.where}: {operator.kind} {name}: expected {expected}, found {found}")

    def constant(self, operator: Operator, what: str) -> NDArray[Any]:
        """Return the second input, a constant of whole numbers."""
        data = self.model.tensors[operator.inputs[1]].data
        if data is None or data.dtype.kind != "i":
            self.fail(operator, f"a constant of whole numbers as its {what}", "none")
        assert data is not None
        return data

    def same(self, operator: Operator, name: str) -> int:
        """Return an option that is the same for height and width."""
        height, width = (int(operator.options[f"{name}_{axis}"]) for axis in "hw")
        if height != width:
            self.fail(operator, f"one {name} for both axes", f"{height} x {width}")
        return height


def _needed(model: Model) -> tuple[Operator, ...]:
    """Return the operators that the outputs depend on, in order; what computes a shape that the file has is none."""

    def reads(operator: Operator) -> Sequence[int]:
        *_, count = _OPERATIONS.get(operator.kind, (None,))
        return operator.inputs[:count]

    return sweep_back(model.operators, model.outputs, lambda operator: operator.outputs, reads)


def _activated(self: _Translator, operator: Operator) -> Options:
    function = operator.options["activation"]
    return {"activation": "linear" if function == "none" else str(function)}


def _convolution(self: _Translator, operator: Operator) -> Options:
    sizes = {name: self.same(operator, name) for name in ("stride", "dilation")}
    return {**sizes, "padding": operator.options["padding"], **_activated(self, operator)}


def _dense(self: _Translator, operator: Operator) -> Options:
    if operator.options["weights_format"]:
        self.fail(operator, "weights in their own order", "shuffled ones")
    return {"keep_num_dims": operator.options["keep_num_dims"], **_activated(self, operator)}


def _pool(self: _Translator, operator: Operator) -> Options:
    kernel_size = tuple(int(operator.options[f"filter_{axis}"]) for axis in "hw")
    padding = {"padding": operator.options["padding"], **_activated(self, operator)}
    return {"kernel_size": kernel_size, "stride": _pool_stride(self, operator, kernel_size), **padding}


def _pool_stride(self: _Translator, operator: Operator, kernel_size: tuple[int, ...]) -> int:
    """Return the stride; where there is a single window it does not matter."""
    is_single = self.tensor(operator.inputs[0]).shape[1:3] == kernel_size and operator.options["padding"] == "VALID"
    return 1 if is_single else self.same(operator, "stride")


def _nothing(self: _Translator, operator: Operator) -> Options:
    return {}


def _mean(self: _Translator, operator: Operator) -> Options:
    rank = len(self.tensor(operator.inputs[0]).shape)
    axes = (int(axis) for axis in self.constant(operator, "axes").reshape(-1)[:9])
    found = tuple(axis + rank if axis < 0 else axis for axis in axes)
    return {"axes": found, "keep_dims": operator.options["keep_dims"]}


def _axis(self: _Translator, operator: Operator, axis: int) -> int:
    return axis + len(self.tensor(operator.inputs[0]).shape) if axis < 0 else axis


def _concatenation(self: _Translator, operator: Operator) -> Options:
    return {"axis": _axis(self, operator, operator.options["axis"]), **_activated(self, operator)}


def _argmax(self: _Translator, operator: Operator) -> Options:
    axes = self.constant(operator, "axis").reshape(-1)
    if axes.size != 1:
        self.fail(operator, "one axis", f"{axes.size}")
    return {"axis": _axis(self, operator, int(axes[0]))}


def _padding(self: _Translator, operator: Operator) -> Options:
    pairs = self.constant(operator, "paddings")
    if pairs.shape != (len(self.tensor(operator.inputs[0]).shape), 2):
        self.fail(operator, "a pair (before, after) for every axis", f"a constant of shape {pairs.shape}")
    return {"padding": tuple((int(before), int(after)) for before, after in pairs)}


def _softmax(self: _Translator, operator: Operator) -> Options:
    return {"beta": float(operator.options["beta"])}


def _resize(self: _Translator, operator: Operator) -> Options:
    return dict(operator.options)


_OPERATIONS: Mapping[str, tuple[str, Callable[[_Translator, Operator], Options], int | None]] = {
    "CONV_2D": ("conv2d", _convolution, 3),
    "DEPTHWISE_CONV_2D": ("depthwise_conv2d", _convolution, 3),
    "FULLY_CONNECTED": ("fully_connected", _dense, 3),
    "ADD": ("add", _activated, 2),
    "AVERAGE_POOL_2D": ("average_pool2d", _pool, 1),
    "MEAN": ("mean", _mean, 1),
    "RESHAPE": ("reshape", _nothing, 1),
    "SQUEEZE": ("reshape", _nothing, 1),
    "SOFTMAX": ("softmax", _softmax, 1),
    "LOGISTIC": ("logistic", _nothing, 1),
    "CONCATENATION": ("concatenate", _concatenation, None),
    "RESIZE_BILINEAR": ("resize_bilinear", _resize, 1),
    "QUANTIZE": ("quantize", _nothing, 1),
    "DEQUANTIZE": ("dequantize", _nothing, 1),
    "PAD": ("pad", _padding, 1),
    "ARG_MAX": ("argmax", _argmax, 1),
}
"""TFLite's word: ours, the reader of its attributes, and how many of its inputs are maps, weights and biases."""
