"""Bytes that are looked up in a table of 256 results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.layout import lift
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class LookUp(QuantizedOperation):
    """Attribute results (256), those of `layout.every_byte`: no file has it (see `join_look_ups`)."""

    def define(self, call: Call) -> Array:
        """Return the result of every byte."""
        (x,) = call.arrays
        found: Array = call.attributes["results"][x.astype(np.int64) + lift(x.dtype)]
        return found

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Every one is looked up."""
        return True

    def is_by_byte(self, operation: Operation, out: Tensor) -> bool:
        """It always is."""
        return True

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add the look-up."""
        builder.add_look_up(operation, operation.attributes["results"])
