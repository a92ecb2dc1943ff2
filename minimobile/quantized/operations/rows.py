"""Maps of one picture as rows of a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.layout import is_map
from minimobile.quantized.network import Network, Operation
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Rows(QuantizedOperation):
    """The bytes of maps, one map after the other, in the shape of the output: no file has it (see `spread_rows`)."""

    keeps_numbers = True
    writes_result = True

    def define(self, call: Call) -> Array:
        """Return the bytes of all maps."""
        return np.concatenate([x.reshape(-1) for x in call.arrays]).reshape(call.out.shape)

    def has_kernel(self, operation: Operation, network: Network, limits: Limits) -> bool:
        """Tell whether they are maps to the kernels."""
        return all(is_map(network.tensors[name]) for name in operation.inputs)

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add the copy of every map to its place in the result."""
        place = builder.results[operation.output]
        for name in operation.inputs:
            size = int(np.prod(builder.shape(name)))
            builder.add_step("unpack", name, name, size, out=place)
            place += size
