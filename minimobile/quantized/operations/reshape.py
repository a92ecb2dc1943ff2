"""The same bytes in another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minimobile.quantized.layout import as_image
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation
from minimobile.quantized.operations.reading import BYTES, Reading, Shape


class Reshape(QuantizedOperation):
    """The shape is that of the output."""

    keeps_numbers = True

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check that there are as many values, of the same type and scale."""
        (x,) = reading.inputs(1)
        reading.demand(x.dtype == out.dtype, f"a result of {x.dtype}", f"{out.dtype}")
        is_same = math.prod(x.shape) == math.prod(out.shape)
        reading.demand(is_same, f"a shape of as many values as {x.shape}", f"{out.shape}")
        if x.dtype in BYTES:
            reading.check_same_scale(x, out)
        return out.shape

    def define(self, call: Call) -> Array:
        """Return the values in the shape of the output."""
        return call.arrays[0].reshape(call.out.shape)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether both are the same map to the kernels."""
        return as_image(inputs[0].shape) == as_image(out.shape)

    def is_same_bytes(self, x: Tensor, out: Tensor) -> bool:
        """It always is."""
        return True
