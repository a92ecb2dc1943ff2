"""Maps of bytes side by side, brought to one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.layout import every_byte
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation, affine
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference_maps

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Concatenate(QuantizedOperation):
    """Attribute axis, from the first on."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check that the inputs are alike but for the axis; signed ones must have the result's scale."""
        inputs = reading.inputs(*range(1, len(reading.operation.inputs) + 1))
        reading.check_bytes(*inputs, out)
        attributes = reading.attributes
        axis, first = attributes["axis"], inputs[0]
        reading.demand(attributes.get("activation", "linear") == "linear", "no activation", f"{attributes}")
        reading.demand(0 <= axis < len(first.shape), f"an axis of {len(first.shape)} dimensions", f"{axis}")
        for x in inputs:
            rest = (*x.shape[:axis], first.shape[axis] if len(x.shape) == len(first.shape) else 0, *x.shape[axis + 1 :])
            reading.demand(rest == first.shape, f"inputs like {first.shape} but for axis {axis}", f"{x.shape}")
            if out.dtype == np.int8:
                reading.check_same_scale(out, x)
            else:
                reading.check_factor(float(x.scale) / float(out.scale), 255)
        return (*first.shape[:axis], sum(x.shape[axis] for x in inputs), *first.shape[axis + 1 :])

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        own = [affine(x) for x in call.inputs]
        return reference_maps.concatenate(call.arrays, own, affine(call.out), call.attributes["axis"])

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether whole vectors of channels are put after each other; of one input alone, the axis is none."""
        is_along_channels = len(inputs) == 1 or operation.attributes["axis"] == len(inputs[0].shape) - 1
        are_maps = all(tensor.values is None for tensor in inputs[1:])
        return is_along_channels and are_maps and all(x.shape[-1] % limits.lanes == 0 for x in inputs[:-1])

    def is_by_byte(self, operation: Operation, out: Tensor) -> bool:
        """Tell whether whole inputs lie one after the other."""
        return math.prod(out.shape[: operation.attributes["axis"]]) == 1

    def changes_bytes(self, x: Tensor, out: Tensor) -> bool:
        """Tell whether they are brought to another scale."""
        return affine(x) != affine(out)

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add the copies of maps to their planes of another, brought to its scale."""
        out = builder.tensor(operation.output)
        target = builder.places[out.name]
        for name in operation.inputs:
            x = builder.tensor(name)
            cost = int(np.prod(x.shape))
            own, to = affine(x), affine(out)
            if own == to:
                builder.add_step("pad", name, name, cost, out=target)
            else:
                table = builder.put_table(reference_maps.concatenate([every_byte(x)], [own], to, 0))
                builder.add_step("look_up", name, name, 4 * cost, out=target, table=table)
            target += builder.shape(name)[3] // builder.lanes * builder.plane(name)
