"""Softmax of bytes along the last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.operation import Array, Call, Limits
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile.quantized.operations.scores import Scores
from minimobile_kernels.quantized import reference_activations
from minimobile_kernels.quantized.reference import ONNX_RUNTIME
from minimobile_kernels.quantized.reference_activations import DIFFERENCE_BITS

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder


class Softmax(Scores):
    """Attribute beta."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Check the result's scale, and beta."""
        x = self.check_share(reading, out)
        beta = reading.attributes["beta"]
        factor = beta * float(x.scale) * 2.0**DIFFERENCE_BITS
        is_right = math.isfinite(factor) and beta > 0 and factor > 1
        reading.demand(is_right, "a beta above zero that, times the scale, is at least 2**-26", f"{beta:g}")
        return x.shape

    def define(self, call: Call) -> Array:
        """Compute the result on its definition."""
        scale, beta = float(call.inputs[0].scale), call.attributes["beta"]
        if call.bytes_of in ONNX_RUNTIME:
            return reference_activations.softmax_of_floats(call.arrays[0], scale * beta)
        return reference_activations.softmax(call.arrays[0], scale, beta)

    def has_kernel(self, operation: Operation, network: Network, limits: Limits) -> bool:
        """Tell whether the kernel can do it: rows (N, A, C), too, as those of an SSD's classes."""
        x, out = (network.tensors[name] for name in (operation.inputs[0], operation.output))
        if len(x.shape) == 3 and x.values is None:
            return x.dtype == out.dtype and self.fits(operation, [x], out, limits)
        return super().has_kernel(operation, network, limits)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether the sum of so many channels stays within the kernel's integers, by a rule of integers."""
        return inputs[0].shape[-1] <= limits.most_channels and limits.bytes_of not in ONNX_RUNTIME

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add its step, with the exponentials of all differences."""
        x = builder.tensor(operation.inputs[0])
        exponentials = reference_activations.exponentials(float(x.scale), operation.attributes["beta"])
        powers = np.stack(exponentials).astype(np.int32)
        cost = 100 * int(np.prod(x.shape))
        builder.add_step("softmax", x.name, operation.output, cost, powers=builder.keep(powers))
