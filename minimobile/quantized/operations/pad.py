"""Zero points around a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation, Sides
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference_maps

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Pad(QuantizedOperation):
    """Attribute padding: a pair (before, after) for every axis."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the pairs, and that the scale stays."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x, out)
        reading.check_same_scale(x, out)
        padding = reading.attributes["padding"]
        is_right = len(padding) == len(x.shape) and all(min(pair) >= 0 for pair in padding)
        reading.demand(is_right, f"{len(x.shape)} pairs of zero or more", f"{list(padding)[:9]}")
        return tuple(before + size + after for size, (before, after) in zip(x.shape, padding, strict=True))

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        return reference_maps.pad(call.arrays[0], call.attributes["padding"], call.out.zero)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether it is around every image."""
        return self.sides_padded(operation) is not None

    def sides_padded(self, operation: Operation) -> Sides | None:
        """Return the pairs of the axes H and W, if no other is padded."""
        padding = operation.attributes["padding"]
        if len(padding) != 4 or any((*padding[0], *padding[3])):
            return None
        return padding[1], padding[2]

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add zero points above, below and beside every image."""
        out = builder.tensor(operation.output)
        _, (top, _), (left, _), _ = operation.attributes["padding"]
        builder.add_step("pad", operation.inputs[0], out.name, int(np.prod(out.shape)), pad_top=top, pad_left=left)
