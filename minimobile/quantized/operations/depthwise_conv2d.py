"""Depthwise convolution of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.arithmetic import activation_range
from minimobile.quantized.layout import lifted_zero, values_of
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, Sides, slide
from minimobile.quantized.operations.product import Product, definition_arguments, operands, put_scales
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder

MOST_TAPS = 256  # many times those of a MobileNet


class DepthwiseConv2d(Product):
    """Weight (1, K_h, K_w, C); attributes stride, dilation, padding ("SAME", "VALID"), activation."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check weight and bias; return the shape that the window gives."""
        x, weight, *bias = reading.inputs(2, 3)
        reading.check_rank(x, 4)
        reading.check_rank(weight, 4)
        is_right = weight.shape[0] == 1 and weight.shape[3] == x.shape[3] and min(weight.shape) >= 1
        reading.demand(is_right, f"a weight (1, K_h, K_w, {x.shape[3]}), one filter per channel", f"{weight.shape}")
        taps = weight.shape[1] * weight.shape[2]
        reading.demand(taps <= MOST_TAPS, f"a filter of at most {MOST_TAPS} taps", f"{weight.shape}")
        reading.check_product(x, weight, bias[0] if bias else None, out, 3)
        return reading.slide(x, weight.shape[1:3], weight.shape[3])

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        (x, weight, *_), (pixels, kernel, *_) = call.inputs, call.arrays
        arguments = definition_arguments(call, call.slide(weight.shape[1:3]))
        return reference.depthwise_conv2d(pixels, x.zero, kernel[0], weight.zero, *arguments)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Every one has a kernel."""
        return True

    def can_pad(self, operation: Operation, sides: Sides) -> bool:
        """Tell whether it pads nothing yet, and would have to as far as its tiles do."""
        return bool(operation.attributes["padding"] == "VALID" and max(map(max, sides)) <= 1)

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add its step."""
        x, weight, _, out = operands(builder, operation)
        _, kernel_height, kernel_width, _ = weight.shape
        window = slide(operation.attributes, x.shape, (kernel_height, kernel_width))
        values = values_of(weight)[0].astype(np.int64) - weight.zero_points.reshape(1, 1, -1)
        # Planes differ by how often they are visited and how many sums are in doubt: two threads finish together where
        # parts are small. In parts of 10 to 15 us V2 1.0 224 took 1.02, V1 0.5 224 1.015, SSDLite 1.01 to 1.03.
        builder.add_step(
            "depthwise_conv2d", x.name, out.name, 32 * values.size * window.out_height * window.out_width,
            activation_range(operation.attributes["activation"], out), kernel_height=kernel_height,
            kernel_width=kernel_width, stride=window.stride, dilation=window.dilation, pad_top=window.pad_top,
            pad_left=window.pad_left, **builder.put_filters(values, lifted_zero(x)),
            **put_scales(builder, operation, values.reshape(-1, values.shape[2]).T),
        )  # fmt: skip
