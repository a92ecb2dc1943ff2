"""A linear layer of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.layout import values_of
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits
from minimobile.quantized.operations.product import Product, add_product, definition_arguments, operands
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.geometry import window
from minimobile_kernels.quantized import reference

ROUNDING = {"litert": "litert-single-rounding"}
"""LiteRT's reference kernel of this operation rounds once, where its convolutions round twice."""

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class FullyConnected(Product):
    """Weight (C_out, C_in); attributes activation, keep_num_dims."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check weight and bias; return the shape of the rows, each with C_out values."""
        x, weight, *bias = reading.inputs(2, 3)
        reading.check_rank(weight, 2)
        is_right = min(weight.shape) >= 1 and weight.shape[1] == x.shape[-1]
        reading.demand(is_right, f"a weight for {x.shape[-1]} values", f"{weight.shape}")
        reading.check_product(x, weight, bias[0] if bias else None, out, 0)
        rows = (math.prod(x.shape[:-1]),)
        return (*(x.shape[:-1] if reading.attributes.get("keep_num_dims") else rows), weight.shape[0])

    def define(self, call: Call) -> Array:
        """Compute the result as a convolution of single pixels."""
        (x, weight, *_), (values, kernel, *_) = call.inputs, call.arrays
        pixels = values.reshape(-1, 1, 1, weight.shape[1])
        call = call._replace(bytes_of=ROUNDING.get(call.bytes_of, call.bytes_of))
        arguments = definition_arguments(call, window(1, 1, (1, 1), 1, 1, "VALID"))
        found = reference.conv2d(pixels, x.zero, kernel[:, None, None, :], weight.zero, *arguments)
        return found.reshape(call.out.shape)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether the rows of the map are those of the product."""
        return inputs[1].shape[1] == inputs[0].shape[-1]

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add a product of the rows of a matrix, single pixels, and the weights."""
        _, weight, _, _ = operands(builder, operation)
        values = values_of(weight).astype(np.int64) - weight.zero_points.reshape(-1, 1)
        add_product(builder, operation, values, ROUNDING.get(builder.bytes_of, builder.bytes_of))
