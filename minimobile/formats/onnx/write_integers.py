"""A network of integers as ONNX's QDQ form: every tensor of bytes is a QuantizeLinear and a DequantizeLinear.

Operators of floats stand between them, and a runtime that knows integers makes one of all three: so does ONNX Runtime's
own quantiser write. Scales, weights and biases are the network's; so are zero points, but for maps of int8: they are
written as uint8, bytes and zero points 128 higher, which stand for the same numbers.

(On x86-64 ONNX Runtime has kernels for maps of uint8. Of int8, it makes uint8 of those that one operator reads, and
between one and the other a convolution stays in floats, with its sum: 25 operators of V2 1.0 224, which took 6.25 ms in
place of 3.61 on one thread of a Zen 4, and had other bytes than its kernels of integers give.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.onnx.write_model import Attribute, Model, Operator, Size, Value
from minimobile.networks.graph import INPUT
from minimobile.operations.shapes import explicit_padding
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.table import operation_of
from minimobile.quantized.predictions import BOXES, SCORES
from minimobile_kernels.geometry import window

Array = NDArray[Any]


def write_integers(network: Network, where: str) -> Model:
    """Return the model of a network with one picture in and one result out, any number of pictures at a time.

    A network that resizes takes one: the operator is told all sizes of its result. The input are pixel values of
    float32 (N, C, H, W), the result numbers, too (or whole numbers, of classes). A detector has two results, its box
    encodings (N, A, 4) and its scores (N, A, classes + 1). Raises FormatError for what has no form in ONNX.
    """
    return _IntegerWriter(network, where).write()


class _IntegerWriter:
    def __init__(self, network: Network, where: str) -> None:
        self.network = network
        self.where = where
        self.operators: list[Operator] = []
        self.constants: dict[str, Array] = {}
        self.batch: Size = 1 if any(step.op == "resize_bilinear" for step in network.operations) else "batch"
        self.floats: dict[str, str] = {}  # name of a tensor -> tensor of the file with the numbers that it stands for

    def write(self) -> Model:
        network = self.network
        if len(network.inputs) != 1 or not 1 <= len(network.outputs) <= 2:
            raise FormatError(
                f"{self.where}: expected a network with one result, or a detector's two, found {len(network.outputs)}"
            )
        first = network.tensors[network.inputs[0]]
        self.floats[first.name] = self.quantize(first, INPUT)
        for operation in network.operations:
            self.add_operation(operation)
        names = (BOXES, SCORES) if len(network.outputs) == 2 else (self.name_result(),)
        results = [self.add_result(*pair) for pair in zip(names, network.outputs, strict=True)]
        size = Value(INPUT, "float32", (self.batch, *_sizes(first)[1:]))
        return Model(tuple(self.operators), self.constants, (size,), tuple(results))

    def name_result(self) -> str:
        """Return what the one result is called, by the operation that makes it."""
        made_by = {operation.output: operation for operation in self.network.operations}
        result = made_by[self.network.outputs[0]]
        while result.op in ("dequantize", "quantize", "reshape"):
            result = made_by[result.inputs[0]]
        return operation_of(result).result or "logits"

    def add_result(self, name: str, tensor: str) -> Value:
        """Give the numbers of a tensor the name of a result."""
        self.add("Identity", name, (self.floats[tensor],))
        dtype = "int64" if name == "classes" else "float32"
        return Value(name, dtype, (self.batch, *_sizes(self.network.tensors[tensor])[1:]))

    def add(self, kind: str, name: str, inputs: tuple[str, ...], **attributes: Attribute) -> str:
        """Append an operator; its tensor is called as it is, and what a detector's result is made from NAME.numbers."""
        if kind != "Identity" and name in (BOXES, SCORES):
            name = f"{name}.numbers"
        self.operators.append(Operator(kind, name, inputs, name, attributes))
        return name

    def keep(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def grid(self, tensor: Tensor) -> tuple[str, str]:
        """Keep scale and zero point of a tensor, whose type in the file is that of the zero point."""
        is_lifted = tensor.values is None and tensor.dtype == np.int8
        zeros = (tensor.zero_points + 128).astype(np.uint8) if is_lifted else tensor.zero_points.astype(tensor.dtype)
        per_axis = len(tensor.scales) > 1
        scale = self.keep(f"{tensor.name}.scale", tensor.scales if per_axis else tensor.scales[0])
        return scale, self.keep(f"{tensor.name}.zero_point", zeros if per_axis else zeros[0])

    def quantize(self, tensor: Tensor, numbers: str) -> str:
        """Bring numbers to the grid of a tensor, where it has one; returns the tensor of what they then are."""
        if tensor.dtype.kind == "f" or not len(tensor.scales):
            return numbers
        grid = self.grid(tensor)
        stored = self.add("QuantizeLinear", f"{tensor.name}.quantized", (numbers, *grid))
        return self.add("DequantizeLinear", f"{tensor.name}.dequantized", (stored, *grid))

    def add_operation(self, operation: Operation) -> None:
        out = self.network.tensors[operation.output]
        if operation.op not in _WRITERS:
            self.refuse(operation)
        numbers = _WRITERS[operation.op](self, operation, out)
        function = operation.attributes.get("activation", "linear")
        if function == "relu6":
            limits = self.keep("zero", np.float32(0)), self.keep("six", np.float32(6))
            numbers = self.add("Clip", f"{out.name}.relu6", (numbers, *limits))
        elif function == "relu":
            numbers = self.add("Relu", f"{out.name}.relu", (numbers,))
        elif function != "linear":
            self.refuse(operation)
        self.floats[out.name] = self.quantize(out, numbers)

    def convolution(self, operation: Operation, out: Tensor) -> str:
        x, weight = (self.network.tensors[name] for name in operation.inputs[:2])
        attributes, is_depthwise = operation.attributes, operation.op == "depthwise_conv2d"
        size = (weight.shape[1], weight.shape[2])
        slide = window(
            x.shape[1], x.shape[2], size, attributes["stride"], attributes["dilation"], attributes["padding"]
        )
        axes = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
        return self.add(
            "Conv",
            out.name,
            (self.floats[x.name], *self.weights(operation, axes)),
            kernel_shape=size,
            group=weight.shape[3] if is_depthwise else 1,
            strides=(slide.stride,) * 2,
            dilations=(slide.dilation,) * 2,
            pads=explicit_padding(slide),
        )

    def dense(self, operation: Operation, out: Tensor) -> str:
        x = self.network.tensors[operation.inputs[0]]
        row = self.floats[x.name]
        if len(x.shape) == 4:
            if x.shape[1:3] != (1, 1) or len(out.shape) != 2:
                self.refuse(operation)
            row = self.add("Flatten", f"{out.name}.row", (row,), axis=1)
        return self.add("Gemm", out.name, (row, *self.weights(operation, (0, 1))), transB=1)

    def weights(self, operation: Operation, axes: tuple[int, ...]) -> list[str]:
        """Keep a kernel, its axes in ONNX's order, and a bias; returns the tensors of the numbers they stand for."""
        x, weight, *bias = (self.network.tensors[name] for name in operation.inputs)
        if weight.values is None or any(tensor.values is None for tensor in bias):
            self.refuse(operation)
        assert weight.values is not None
        along = {"axis": axes.index(weight.axis)} if len(weight.scales) > 1 else {}
        stored = self.keep(weight.name, np.ascontiguousarray(weight.values.transpose(axes)))
        found = [self.add("DequantizeLinear", f"{weight.name}.dequantized", (stored, *self.grid(weight)), **along)]
        for tensor in bias:
            assert tensor.values is not None
            scales = tensor.scales if len(tensor.scales) else x.scale * weight.scales
            kept = self.keep(tensor.name, tensor.values)
            scale = self.keep(f"{tensor.name}.scale", scales if len(scales) > 1 else scales[0])
            along = {"axis": 0} if len(scales) > 1 else {}
            found.append(self.add("DequantizeLinear", f"{tensor.name}.dequantized", (kept, scale), **along))
        return found

    def pool(self, operation: Operation, out: Tensor) -> str:
        x, attributes = self.network.tensors[operation.inputs[0]], operation.attributes
        slide = window(
            x.shape[1], x.shape[2], attributes["kernel_size"], attributes["stride"], 1, attributes["padding"]
        )
        return self.add(
            "AveragePool", out.name, (self.floats[x.name],), kernel_shape=(slide.kernel_height, slide.kernel_width),
            strides=(slide.stride,) * 2, pads=explicit_padding(slide), count_include_pad=0,
        )  # fmt: skip

    def mean(self, operation: Operation, out: Tensor) -> str:
        if set(operation.attributes["axes"]) != {1, 2}:
            self.refuse(operation)
        pooled = (self.floats[operation.inputs[0]],)
        if operation.attributes["keep_dims"]:
            return self.add("GlobalAveragePool", out.name, pooled)
        return self.add("ReduceMean", out.name, pooled, axes=(2, 3), keepdims=0)

    def reshape(self, operation: Operation, out: Tensor) -> str:
        x = self.network.tensors[operation.inputs[0]]
        if x.shape == out.shape:
            return self.copy(operation, out)
        if len(x.shape) == 4 and len(out.shape) == 3:  # a map of predictions as rows
            rows = self.add("Transpose", f"{out.name}.last", (self.floats[x.name],), perm=(0, 2, 3, 1))
            sizes = self.keep(f"{out.name}.sizes", np.array([-1, *out.shape[1:]], np.int64))
            return self.add("Reshape", out.name, (rows, sizes))
        if len(x.shape) != 4 or x.shape[1:3] != (1, 1) or len(out.shape) != 2:
            self.refuse(operation)
        return self.add("Flatten", out.name, (self.floats[x.name],), axis=1)

    def join(self, operation: Operation, out: Tensor) -> str:
        axis = _axis(operation.attributes["axis"], out)
        return self.add("Concat", out.name, tuple(self.floats[name] for name in operation.inputs), axis=axis)

    def resize(self, operation: Operation, out: Tensor) -> str:
        sizes = self.keep(f"{out.name}.sizes", np.array([1, *_sizes(out)[1:]], np.int64))
        mode = next((name for name in ("align_corners", "half_pixel_centers") if operation.attributes[name]), "")
        mode = {"half_pixel_centers": "half_pixel", "": "asymmetric"}.get(mode, mode)
        inputs = (self.floats[operation.inputs[0]], "", "", sizes)
        return self.add("Resize", out.name, inputs, mode="linear", coordinate_transformation_mode=mode)

    def pad(self, operation: Operation, out: Tensor) -> str:
        before, after = zip(*operation.attributes["padding"], strict=True)
        pads = [sides[axis] for sides in (before, after) for axis in (0, 3, 1, 2)]
        kept = self.keep(f"{out.name}.pads", np.array(pads, np.int64))
        return self.add("Pad", out.name, (self.floats[operation.inputs[0]], kept))

    def softmax(self, operation: Operation, out: Tensor) -> str:
        if operation.attributes["beta"] != 1:
            self.refuse(operation)
        return self.add("Softmax", out.name, (self.floats[operation.inputs[0]],), axis=_axis(len(out.shape) - 1, out))

    def argmax(self, operation: Operation, out: Tensor) -> str:
        x = self.network.tensors[operation.inputs[0]]
        axis = _axis(operation.attributes["axis"], x)
        return self.add("ArgMax", out.name, (self.floats[x.name],), axis=axis, keepdims=0)

    def copy(self, operation: Operation, out: Tensor) -> str:
        return self.floats[operation.inputs[0]]

    def refuse(self, operation: Operation) -> None:
        raise FormatError(
            f"{self.where}: {operation.output}: expected an operation of integers that can be written for ONNX, got "
            f"{operation.op}"
        )


def _as_it_is(kind: str) -> Callable[[_IntegerWriter, Operation, Tensor], str]:
    def write(writer: _IntegerWriter, operation: Operation, out: Tensor) -> str:
        return writer.add(kind, out.name, tuple(writer.floats[name] for name in operation.inputs))

    return write


def _axis(axis: int, tensor: Tensor) -> int:
    """Return an axis of (N, H, W, C) in (N, C, H, W); of other tensors, the axis itself."""
    return (0, 2, 3, 1)[axis] if len(tensor.shape) == 4 else axis


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    """Return a tensor's shape, (N, C, H, W) for an image."""
    shape = tensor.shape
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


_WRITERS: Mapping[str, Callable[[_IntegerWriter, Operation, Tensor], str]] = {
    "conv2d": _IntegerWriter.convolution,
    "depthwise_conv2d": _IntegerWriter.convolution,
    "fully_connected": _IntegerWriter.dense,
    "add": _as_it_is("Add"),
    "logistic": _as_it_is("Sigmoid"),
    "average_pool2d": _IntegerWriter.pool,
    "mean": _IntegerWriter.mean,
    "reshape": _IntegerWriter.reshape,
    "softmax": _IntegerWriter.softmax,
    "concatenate": _IntegerWriter.join,
    "resize_bilinear": _IntegerWriter.resize,
    "pad": _IntegerWriter.pad,
    "argmax": _IntegerWriter.argmax,
    "quantize": _IntegerWriter.copy,
    "dequantize": _IntegerWriter.copy,
}
