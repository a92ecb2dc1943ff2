"""The place of the largest byte along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.layout import is_map
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference_maps
from minimobile_kernels.quantized.constants import PLACE_BITS
from minimobile_kernels.quantized.reference import Range

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Argmax(QuantizedOperation):
    """Attribute axis, from the first on. Its numbers are no map: the step writes the result itself."""

    result = "classes"
    writes_result = True

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the type of the result, and the axis; return the shape without it."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x)
        reading.demand(out.dtype in (np.int32, np.int64), "a result of int32 or int64", f"{out.dtype}")
        axis = reading.attributes["axis"]
        reading.demand(0 <= axis < len(x.shape), f"an axis of {len(x.shape)} dimensions", f"{axis}")
        return (*x.shape[:axis], *x.shape[axis + 1 :])

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        return reference_maps.argmax(call.arrays[0], call.attributes["axis"], call.out.dtype)

    def has_kernel(self, operation: Operation, network: Network, limits: Limits) -> bool:
        """Tell whether it is over the channels of a map, whose places fit a key."""
        x = network.tensors[operation.inputs[0]]
        return is_map(x) and operation.attributes["axis"] == len(x.shape) - 1 and x.shape[-1] <= 1 << PLACE_BITS

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add the channel of the largest byte of every pixel, written to its place in the result."""
        x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
        place, words = builder.results[out.name], out.dtype.itemsize // 4
        builder.add_step("argmax", x.name, x.name, 16 * int(np.prod(x.shape)), Range(0, 0, 0), out=place, words=words)
