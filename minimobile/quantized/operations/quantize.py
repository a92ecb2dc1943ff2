"""Bytes of another scale, zero point or type, or of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.arithmetic import change_of_scale, full_range
from minimobile.quantized.layout import every_byte, is_map, lifted_zero
from minimobile.quantized.network import Network, Operation, Tensor, shorten
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation, affine
from minimobile.quantized.operations.reading import BYTES, Reading, Shape
from minimobile_kernels.quantized import reference_maps

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Quantize(QuantizedOperation):
    """It has no attributes."""

    keeps_numbers = True

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the types, and the ratio of the scales."""
        (x,) = reading.inputs(1)
        reading.check_bytes(out)
        is_right = x.dtype in (*BYTES, np.float32)
        reading.demand(is_right, f"{shorten(x.name)} of float32, uint8 or int8", f"{x.dtype}")
        if x.dtype in BYTES:
            reading.check_factor(float(x.scale) / float(out.scale), 255)
        return x.shape

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        (x,), out = call.inputs, call.out
        if x.dtype == np.float32:
            return reference_maps.quantize(call.arrays[0], affine(out), out.dtype, call.bytes_of)
        by, to = change_of_scale(x, out), full_range(out)
        return reference_maps.requantize_bytes(call.arrays[0], x.zero, by, to, out.dtype, call.bytes_of)

    def has_kernel(self, operation: Operation, network: Network, limits: Limits) -> bool:
        """Tell whether it makes bytes of the caller's numbers, or of other bytes."""
        if not self.reads_image(operation, network):
            return super().has_kernel(operation, network, limits)
        return operation.inputs[0] in network.inputs and is_map(network.tensors[operation.output])

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Every one is looked up."""
        return True

    def is_same_bytes(self, x: Tensor, out: Tensor) -> bool:
        """It is where scale and zero point stay, as the kernels have them."""
        return x.dtype != np.float32 and (x.scale, lifted_zero(x)) == (out.scale, lifted_zero(out))

    def reads_image(self, operation: Operation, network: Network) -> bool:
        """Tell whether its input are numbers."""
        return network.tensors[operation.inputs[0]].dtype == np.float32

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add what makes bytes of the caller's numbers, or the look-up of 256 results."""
        x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
        if x.dtype == np.float32:
            scale = builder.keep(out.scales.view(np.int32))
            builder.add_step("quantize", out.name, out.name, 16 * int(np.prod(out.shape)), scale=scale)
            return
        by, to = change_of_scale(x, out), full_range(out)
        found = reference_maps.requantize_bytes(every_byte(x), x.zero, by, to, out.dtype, builder.bytes_of)
        builder.add_look_up(operation, found)
