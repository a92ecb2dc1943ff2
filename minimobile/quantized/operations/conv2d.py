"""Dense convolution of bytes, of which a pointwise one is the simplest."""

from __future__ import annotations

import math
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
from minimobile_kernels.geometry import Window
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
        """Add a product of a map's pixels and a matrix, or of the windows of an image that is packed first."""
        x, weight, _, out = operands(builder, operation)
        values = values_of(weight).astype(np.int64) - weight.zero_points.reshape(-1, *[1] * 3)
        matrix = values.reshape(len(values), -1)  # (C_out, terms)
        if not self.reads_image(operation, builder.network):
            add_product(builder, operation, matrix)
            return
        window = slide(operation.attributes, x.shape, weight.shape[1:3])
        height, width = _packed_size(window)
        place = _add_packing(builder, x, f"{out.name} packed", window, (height, width))
        channels, line = x.shape[3], width * x.shape[3]
        rows, taps = _stretch(values, window, line, builder.group)
        builder.add_step(
            "conv2d", x.name, out.name, values.size * window.out_height * window.out_width,
            activation_range(operation.attributes["activation"], out), x=place, x_image=height * line, x_row=line,
            x_pixel=window.stride * channels, stride=window.stride, **builder.put_panels(rows, taps),
            **put_scales(builder, operation, matrix),
        )  # fmt: skip


def _packed_size(window: Window) -> tuple[int, int]:
    """Return the rows and columns of an image with its padding, as far as its windows reach."""
    height = (window.out_height - 1) * window.stride + (window.kernel_height - 1) * window.dilation + 1
    width = (window.out_width - 1) * window.stride + (window.kernel_width - 1) * window.dilation + 1
    return max(height, window.pad_top + window.height), max(width, window.pad_left + window.width)


def _add_packing(builder: Builder, x: Tensor, name: str, window: Window, size: tuple[int, int]) -> int:
    """Add the step that packs an image; returns where it lies then.

    The image is the caller's where the input has no place in the arena.
    """
    height, width = size
    count = math.prod((x.shape[0], height, width, x.shape[3]))
    builder.reserve(name, count + SLACK)
    is_from_image = x.name not in builder.places
    source = builder.tensor(builder.network.inputs[0]) if is_from_image else x
    builder.add_step(
        "pack", x.name, x.name, count, out=builder.places[name], out_height=height, out_width=width,
        pad_top=window.pad_top, pad_left=window.pad_left, is_from_image=int(is_from_image),
        is_signed=int(source.dtype == np.int8),
    )  # fmt: skip
    return builder.places[name]


def _stretch(values: Array, window: Window, line: int, group: int) -> tuple[Array, Array]:
    """Return weights (C_out, K_h, K_w, C) as (C_out, groups * group), and where each group's bytes lie.

    A packed image has rows of `line` bytes, all channels of a pixel together: a row of a window is one stretch of
    bytes, or, dilated, several. The places are those from the window's first byte.
    """
    count, kernel_height, kernel_width, channels = values.shape
    stretch, per_row = (kernel_width * channels, 1) if window.dilation == 1 else (channels, kernel_width)
    padded = -(-stretch // group) * group
    rows = np.zeros((count, kernel_height * per_row, padded), np.int64)
    rows[:, :, :stretch] = values.reshape(count, -1, stretch)
    places = [
        (ky * line + kx * channels) * window.dilation + byte
        for ky in range(kernel_height)
        for kx in range(per_row)
        for byte in range(0, padded, group)
    ]
    return rows.reshape(count, -1), np.array(places)
