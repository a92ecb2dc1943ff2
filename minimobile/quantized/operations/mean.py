"""The mean of bytes along axes, brought to a scale of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.arithmetic import change_of_scale, full_range
from minimobile.quantized.layout import lifted_zero
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits, QuantizedOperation
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.quantized import reference_maps

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Mean(QuantizedOperation):
    """Attributes axes, from the first on, and keep_dims."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the axes, and that the sums fit int32; return the shape without them."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x, out)
        axes = reading.attributes["axes"]
        is_right = len(set(axes)) == len(axes) and all(0 <= axis < len(x.shape) for axis in axes)
        reading.demand(is_right, f"axes of {len(x.shape)} dimensions, each once", f"{list(axes)}")
        count = math.prod(x.shape[axis] for axis in axes)
        reading.check_factor(float(x.scale) / float(out.scale), 255 * count)
        if reading.attributes["keep_dims"]:
            return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        return tuple(size for axis, size in enumerate(x.shape) if axis not in axes)

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        (x,) = call.inputs
        axes, to = call.attributes["axes"], full_range(call.out)
        found = reference_maps.mean(call.arrays[0], x.zero, axes, change_of_scale(x, call.out), to, call.bytes_of)
        return found.reshape(call.out.shape)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether it is that of whole images."""
        return len(inputs[0].shape) == 4 and set(operation.attributes["axes"]) == {1, 2} and len(out.shape) in (2, 4)

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add an average over whole images."""
        x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
        _, height, width, channels = x.shape
        count = height * width
        by = reference_maps.mean_scaling(change_of_scale(x, out), count)
        scales = builder.put_scales(by, np.full(channels, -count * lifted_zero(x), np.int64))
        builder.add_step("mean", x.name, out.name, 4 * int(np.prod(x.shape)), scales=scales)
