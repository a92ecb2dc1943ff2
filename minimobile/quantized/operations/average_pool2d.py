"""Average pooling of bytes over windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minimobile.quantized.arithmetic import activation_range
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.mean import Mean
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference
from minimobile_kernels.quantized.reference import ONNX_RUNTIME

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class AveragePool2d(QuantizedOperation):
    """Attributes kernel_size (h, w), stride, padding, activation."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check that the scale stays; return the shape that the window gives."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x, out)
        reading.check_rank(x, 4)
        reading.check_same_scale(x, out)
        reading.check_activation()
        return reading.slide(x, reading.attributes["kernel_size"], x.shape[3])

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        if _is_mean(call.attributes, call.inputs[0], call.bytes_of):
            return Mean().define(call._replace(attributes={"axes": (1, 2), "keep_dims": True}))
        _, low, high = activation_range(call.attributes["activation"], call.out)
        return reference.average_pool2d(call.arrays[0], call.slide(call.attributes["kernel_size"]), low, high)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether all windows lie inside, and their sums in 24 bits."""
        attributes = operation.attributes
        return bool(attributes["padding"] == "VALID") and int(np.prod(attributes["kernel_size"])) < 2**16

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add its step."""
        if _is_mean(operation.attributes, builder.tensor(operation.inputs[0]), builder.bytes_of):
            Mean().add_steps(builder, operation)
            return
        out = builder.tensor(operation.output)
        kernel_height, kernel_width = operation.attributes["kernel_size"]
        builder.add_step(
            "average_pool2d", operation.inputs[0], out.name, int(np.prod(out.shape)) * kernel_height * kernel_width * 4,
            activation_range(operation.attributes["activation"], out), kernel_height=kernel_height,
            kernel_width=kernel_width, stride=operation.attributes["stride"],
        )  # fmt: skip


def _is_mean(attributes: Mapping[str, Any], x: Tensor, bytes_of: str) -> bool:
    """Tell whether it is a mean: ONNX Runtime knows no other rule for whole maps; LiteRT rounds halves from zero."""
    is_whole = (*attributes["kernel_size"], attributes["padding"]) == (*x.shape[1:3], "VALID")
    return bytes_of in ONNX_RUNTIME and is_whole and attributes["activation"] == "linear"
