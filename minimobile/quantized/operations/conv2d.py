"""Dense convolution of bytes, of which a pointwise one is the simplest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.arithmetic import activation_range
from minimobile.quantized.layout import values_of
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, Sides, slide
from minimobile.quantized.operations.product import (
    Product,
    add_product,
    definition_arguments,
    operands,
    put_scales,
)
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder

SLACK = 64  # bytes that a tile may read beyond a packed image


class Conv2d(Product):
    """Weight (C_out, K_h, K_w, C_in); attributes stride, dilation, padding ("SAME", "VALID"), activation."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check weight and bias; return the shape that the window gives."""
        x, weight, *bias = reading.inputs(2, 3)
        reading.check_rank(x, 4)
        reading.check_rank(weight, 4)
        reading.demand(weight.shape[3] == x.shape[3], f"a weight for {x.shape[3]} channels", f"{weight.shape}")
        reading.demand(min(weight.shape) >= 1, "a weight of at least one value", f"{weight.shape}")
        reading.check_product(x, weight, bias[0] if bias else None, out, 0)
        return reading.slide(x, weight.shape[1:3], weight.shape[0])

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        (x, weight, *_), (pixels, kernel, *_) = call.inputs, call.arrays
        arguments = definition_arguments(call, call.slide(weight.shape[1:3]))
        return reference.conv2d(pixels, x.zero, kernel, weight.zero, *arguments)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Every one has a kernel."""
        return True

    def can_pad(self, operation: Operation, sides: Sides) -> bool:
        """Tell whether it pads nothing yet: what packs its image puts zero points around it in the same pass."""
        return bool(operation.attributes["padding"] == "VALID")

    def reads_image(self, operation: Operation, network: Network) -> bool:
        """Tell whether its windows are more than single pixels, side by side: then the image is packed for them."""
        _, *kernel_size, _ = network.tensors[operation.inputs[1]].shape
        shapes = [network.tensors[name].shape for name in (operation.inputs[0], operation.output)]
        same_size = shapes[0][1:3] == shapes[1][1:3]
        return (kernel_size, operation.attributes["stride"], same_size) != ([1, 1], 1, True)

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add a product of a map's pixels and a matrix, or of the windows of an image that is packed first.

        The image is the caller's where the input has no place in the arena.
        """
        x, weight, _, out = operands(builder, operation)
        _, kernel_height, kernel_width, channels = weight.shape
        values = values_of(weight).astype(np.int64) - weight.zero_points.reshape(-1, *[1] * 3)
        if not self.reads_image(operation, builder.network):
            add_product(builder, operation, values.reshape(len(values), channels))
            return
        window = slide(operation.attributes, x.shape, (kernel_height, kernel_width))
        # Rows with all channels together: a row of the window is one stretch of bytes, or, dilated, several.
        stretch = kernel_width * channels if window.dilation == 1 else channels
        per_row = 1 if window.dilation == 1 else kernel_width
        padded = -(-stretch // builder.group) * builder.group
        rows = np.zeros((len(values), kernel_height * per_row, padded), np.int64)
        rows[:, :, :stretch] = values.reshape(len(values), kernel_height * per_row, stretch)
        height = (window.out_height - 1) * window.stride + (kernel_height - 1) * window.dilation + 1
        width = (window.out_width - 1) * window.stride + (kernel_width - 1) * window.dilation + 1
        height, width = max(height, window.pad_top + x.shape[1]), max(width, window.pad_left + x.shape[2])
        packed = f"{out.name} packed"
        builder.reserve(packed, x.shape[0] * height * width * channels + SLACK)
        place = builder.places[packed]
        is_from_image = x.name not in builder.places
        source = builder.tensor(builder.network.inputs[0]) if is_from_image else x
        builder.add_step(
            "pack", x.name, x.name, x.shape[0] * height * width * channels, out=place, out_height=height,
            out_width=width, pad_top=window.pad_top, pad_left=window.pad_left, is_from_image=int(is_from_image),
            is_signed=int(source.dtype == np.int8),
        )  # fmt: skip
        line = width * channels
        taps = [
            (ky * line + kx * channels) * window.dilation + byte
            for ky in range(kernel_height)
            for kx in range(per_row)
            for byte in range(0, padded, builder.group)
        ]
        builder.add_step(
            "conv2d", x.name, out.name, values.size * window.out_height * window.out_width,
            activation_range(operation.attributes["activation"], out), x=place, x_image=height * line, x_row=line,
            x_pixel=window.stride * channels, stride=window.stride,
            **builder.put_panels(rows.reshape(len(values), -1), np.array(taps)),
            **put_scales(builder, operation, values.reshape(len(values), -1)),
        )  # fmt: skip
