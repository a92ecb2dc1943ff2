"""The numbers that bytes stand for."""

from __future__ import annotations

import numpy as np

from minimobile.quantized.network import Tensor
from minimobile.quantized.operations.operation import Array, Call, QuantizedOperation, affine
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference_maps


class Dequantize(QuantizedOperation):
    """It has no attributes, and no kernel."""

    keeps_numbers = True

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the types."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x)
        reading.demand(out.dtype == np.float32, "a result of float32", f"{out.dtype}")
        return x.shape

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        return reference_maps.dequantize(call.arrays[0], affine(call.inputs[0]))
