"""Bilinear resizing of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.layout import lifted_zero
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference_maps
from minimobile_kernels.quantized.reference import ONNX_RUNTIME, written_zero

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class ResizeBilinear(QuantizedOperation):
    """Attributes align_corners, half_pixel_centers; the size is that of the output."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the scale, the rule for corners, and that positions fit their bits."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x, out)
        reading.check_same_scale(x, out)
        reading.check_rank(x, 4)
        reading.check_rank(out, 4)
        attributes = reading.attributes
        is_right = not (attributes["align_corners"] and attributes["half_pixel_centers"])
        reading.demand(is_right, "align_corners or half_pixel_centers", "both")
        is_right = max(*x.shape[1:3], *out.shape[1:3]) < 2**15
        reading.demand(is_right, "sides of less than 32768 pixels, as its 10-bit positions need", f"{out.shape}")
        return (x.shape[0], *out.shape[1:3], x.shape[3])

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        _, height, width, _ = call.out.shape
        return reference_maps.resize_bilinear(call.arrays[0], height, width, **call.attributes, bytes_of=call.bytes_of)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Every one has a kernel."""
        return True

    def is_same_bytes(self, x: Tensor, out: Tensor) -> bool:
        """It is where the size stays."""
        return x.shape == out.shape

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add its step, with the neighbours and weights of every row and column."""
        x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
        places = []
        for size, out_size in zip(x.shape[1:3], out.shape[1:3], strict=True):
            points = reference_maps.resize_points(
                size, out_size, x.dtype, **operation.attributes, bytes_of=builder.bytes_of
            )
            table = np.zeros((out_size, len(points)), np.int32)
            for column, values in enumerate(points):
                table[:, column] = values.view(np.int32) if values.dtype == np.float32 else values
            places.append(builder.keep(table))
        cost = 32 * int(np.prod(out.shape))
        zero = written_zero(builder.bytes_of) if builder.bytes_of in ONNX_RUNTIME else lifted_zero(x)
        builder.add_step(
            "resize_bilinear", x.name, out.name, cost, row_points=places[0], column_points=places[1], x_zero=zero
        )
