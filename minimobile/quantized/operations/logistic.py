"""The logistic function of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minimobile.quantized.layout import every_byte
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile.quantized.operations.scores import Scores
from minimobile_kernels.quantized.reference_activations import logistic

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Logistic(Scores):
    """It has no attributes."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the result's scale."""
        return self.check_share(reading, out).shape

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        return logistic(call.arrays[0], float(call.inputs[0].scale), call.inputs[0].zero)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Every one is looked up."""
        return True

    def is_by_byte(self, operation: Operation, out: Tensor) -> bool:
        """It always is."""
        return True

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add the look-up of its 256 results."""
        x = builder.tensor(operation.inputs[0])
        builder.add_look_up(operation, logistic(every_byte(x), float(x.scale), x.zero))
