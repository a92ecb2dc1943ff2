"""The sum of two maps of bytes at scales of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.arithmetic import activation_range
from minimobile.quantized.layout import lifted_zero
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference
from minimobile_kernels.quantized.reference import (
    ADDED_BITS,
    ONNX_RUNTIME,
    Scaling,
    add_scalings,
    float_factors,
    whole_factors,
    written_zero,
)

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Add(QuantizedOperation):
    """Attribute activation."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the two shapes, and that the scales are not too far apart."""
        x, y = reading.inputs(2)
        reading.check_bytes(x, y, out)
        reading.check_activation()
        reading.demand(y.shape == x.shape, f"a second input of shape {x.shape}", f"{y.shape}")
        ratio = max(float(x.scale), float(y.scale)) / float(out.scale)
        largest = 2 ** (ADDED_BITS - 1)
        is_right = 1 / largest <= ratio < largest
        reading.demand(is_right, f"a scale for the result within {largest} times that of its inputs", f"{out.scale:g}")
        return x.shape

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        x, y = call.inputs
        scales = (float(x.scale), float(y.scale), float(call.out.scale))
        to = activation_range(call.attributes["activation"], call.out)
        return reference.add(call.arrays[0], x.zero, call.arrays[1], y.zero, scales, to, call.bytes_of)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether both are maps, and alike."""
        x, y = inputs
        return y.values is None and y.shape == x.shape

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add its step."""
        x, y, out = (builder.tensor(name) for name in (*operation.inputs, operation.output))
        scales = (float(x.scale), float(y.scale), float(out.scale))
        zeros = (lifted_zero(x), lifted_zero(y), lifted_zero(out))
        fields = {"y_zero": zeros[1]}
        if builder.bytes_of == "xnnpack":
            by_x, by_y, shift = whole_factors(scales)
            bys, bits = [_whole(by_x, 0), _whole(by_y, 0), _whole(0, -shift)], 0
        elif builder.bytes_of in ONNX_RUNTIME:
            written = written_zero(builder.bytes_of)
            factors = float_factors(scales, (zeros[0] - written, zeros[1] - written, zeros[2] - written))
            bys, bits = [_float(factor) for factor in factors], 0
            fields = dict.fromkeys(("x_zero", "y_zero", "out_zero"), written)
        else:
            bys, bits = list(add_scalings(scales)), ADDED_BITS
        builder.add_step(
            "add", x.name, out.name, int(np.prod(out.shape)) * 16,
            activation_range(operation.attributes["activation"], out), y=builder.places[y.name],
            scales=builder.put_addends(bys, bits, scales, zeros), **fields,
        )  # fmt: skip


def _whole(multiplier: int, shift: int) -> Scaling:
    return Scaling(np.array([multiplier]), np.array([shift]), np.zeros(1, np.float32))


def _float(factor: np.float32) -> Scaling:
    return Scaling(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([factor]))
