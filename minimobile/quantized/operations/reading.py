"""What operations demand of their tensors before any kernel runs: bytes, scales, constants, sums within int32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.quantized.arithmetic import ACTIVATIONS
from minimobile.quantized.network import Network, Operation, Tensor, shorten
from minimobile_kernels.geometry import window

BYTES = (np.dtype(np.uint8), np.dtype(np.int8))
ELEMENT_LIMIT = 2**28  # of one map, and of one image with its padding
SCALES = (2.0**-40, 2.0**40)  # of maps; what an activation or a byte stands for stays far inside float32
_BITS = 31  # of a sum and of what it is shifted to

Shape = tuple[int, ...]


class Reading:
    """One operation under examination: what it demands of its tensors, each in one sentence where it fails."""

    def __init__(self, network: Network, where: str, operation: Operation) -> None:
        self.tensors = network.tensors
        self.where = where
        self.operation = operation

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Those of the operation."""
        return self.operation.attributes

    def demand(self, is_right: bool, expected: str, found: str) -> None:
        """Raise FormatError unless it is right."""
        if not is_right:
            at = f"{self.operation.op} {shorten(self.operation.output)}"
            raise FormatError(f"{self.where}: {at}: expected {expected}, found {found}")

    def inputs(self, *counts: int) -> list[Tensor]:
        """Return the inputs, as many as one of the counts."""
        found = [self.tensors[name] for name in self.operation.inputs]
        self.demand(len(found) in counts, f"{' or '.join(map(str, counts))} inputs", f"{len(found)}")
        return found

    def check_map(self, tensor: Tensor) -> None:
        """Check a tensor that is computed: its size, and its scale and zero point where it holds bytes."""
        name, size = shorten(tensor.name), math.prod(tensor.shape)
        self.demand(0 < size <= ELEMENT_LIMIT, f"{name} of 1 to {ELEMENT_LIMIT} values", f"{tensor.shape}")
        if tensor.dtype not in BYTES:
            return
        is_single = len(tensor.scales) == 1 and len(tensor.zero_points) == 1
        self.demand(is_single, f"one scale and zero point of {name}", f"{len(tensor.scales)}")
        low, high = SCALES
        is_right = low <= float(tensor.scale) <= high
        self.demand(is_right, f"a scale of {name} from {low:g} to {high:g}", f"{tensor.scale:g}")
        limits = np.iinfo(tensor.dtype)
        is_right = int(limits.min) <= tensor.zero <= int(limits.max)
        self.demand(is_right, f"a zero point of {name} that is one of its bytes", f"{tensor.zero}")

    def check_bytes(self, *tensors: Tensor) -> None:
        """All of the tensors hold bytes, of one type."""
        for tensor in tensors:
            is_right = tensor.dtype in BYTES and tensor.dtype == tensors[0].dtype
            self.demand(is_right, f"{shorten(tensor.name)} of uint8 or int8, as its neighbours", f"{tensor.dtype}")

    def check_same_scale(self, *tensors: Tensor) -> None:
        """All of the tensors have the scale and the zero point of the first, for their bytes are only moved."""
        first = tensors[0]
        for tensor in tensors[1:]:
            is_same = math.isclose(tensor.scale, first.scale, rel_tol=1e-6) and tensor.zero == first.zero
            found = f"{tensor.scale:g} and {tensor.zero}"
            self.demand(is_same, f"the scale {first.scale:g} and the zero point {first.zero} for its result", found)

    def check_rank(self, tensor: Tensor, rank: int) -> None:
        """A tensor has as many dimensions."""
        self.demand(len(tensor.shape) == rank, f"{shorten(tensor.name)} of {rank} dimensions", f"{tensor.shape}")

    def check_activation(self) -> None:
        """The activation is one of LiteRT's clamps."""
        function = self.attributes["activation"]
        self.demand(function in ACTIVATIONS, f"one of the activations {', '.join(ACTIVATIONS)}", f"{function}")

    def check_factor(self, factor: float, largest: int) -> None:
        """A factor's multiplier can be applied to integers up to `largest` within 32 bits."""
        fits = math.isfinite(factor) and factor >= 0 and largest * max(1.0, 2 * factor) < 2**_BITS
        self.demand(fits, f"scales by whose ratio values up to {largest} stay within int32", f"the ratio {factor:g}")

    def check_product(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, channel_axis: int) -> None:
        """Check weight and bias of a convolution, and that no sum can leave int32."""
        self.check_bytes(x, weight, out)
        self.check_activation()
        values = self.constant(weight, "weight")
        self.check_weight_scales(x, weight, channel_axis)
        axes = tuple(axis for axis in range(values.ndim) if axis != channel_axis)
        limits = np.iinfo(x.dtype)
        largest = max(x.zero - int(limits.min), int(limits.max) - x.zero)
        totals = np.abs(values.astype(np.int64) - weight.zero_points[0]).sum(axes) * largest
        if bias is not None:
            addends = self.constant(bias, "bias")
            is_right = bias.dtype == np.int32 and bias.shape == totals.shape
            self.demand(is_right, f"a bias of int32 {totals.shape}", f"{bias.dtype} {bias.shape}")
            totals = totals + np.abs(addends.astype(np.int64))
        with np.errstate(over="ignore", under="ignore"):
            factors = np.float64(x.scale) * weight.scales.astype(np.float64) / np.float64(out.scale)
        factors = np.broadcast_to(factors, totals.shape)
        worst = int(np.argmax(totals * np.maximum(1.0, 2 * factors)))
        self.check_factor(float(factors[worst]), int(totals[worst]))

    def constant(self, tensor: Tensor, what: str) -> NDArray[Any]:
        """Return the values of a constant."""
        name = shorten(tensor.name)
        self.demand(tensor.values is not None, f"a {what} that is a constant", f"{name}, which is computed")
        assert tensor.values is not None
        return tensor.values

    def check_weight_scales(self, x: Tensor, weight: Tensor, channel_axis: int) -> None:
        """Check scales and zero points: one for all, or, with int8, one scale for each output channel and no zeros."""
        name, count = shorten(weight.name), len(weight.scales)
        is_per_channel = x.dtype == np.int8 and count == weight.shape[channel_axis] and weight.axis == channel_axis
        is_right = (count == 1 or is_per_channel) and len(weight.zero_points) == count
        choices = f"one scale of {name}" + (f", or one for each of axis {channel_axis}" if x.dtype == np.int8 else "")
        self.demand(is_right, choices, f"{count} along axis {weight.axis}")
        is_right = bool(np.isfinite(weight.scales).all() and (weight.scales > 0).all())
        self.demand(is_right, f"finite scales of {name} above zero", "others")
        low, high = (0, 0) if x.dtype == np.int8 else (0, 255)
        is_right = bool((weight.zero_points >= low).all() and (weight.zero_points <= high).all())
        self.demand(is_right, f"zero points of {name} from {low} to {high}", f"{weight.zero_points[:9].tolist()}")

    def slide(self, x: Tensor, kernel_size: Shape, channels: int) -> Shape:
        """Return the shape of what a window that moves over x gives."""
        attributes = self.attributes
        stride, dilation, padding = attributes["stride"], attributes.get("dilation", 1), attributes["padding"]
        height, width = kernel_size
        self.demand(min(height, width, stride, dilation) >= 1, "a window, stride and dilation of at least 1", "less")
        slide = window(x.shape[1], x.shape[2], (height, width), stride, dilation, padding)
        reach = [size + (side - 1) * dilation + stride for size, side in zip(x.shape[1:3], kernel_size, strict=True)]
        padded = x.shape[0] * math.prod(reach) * x.shape[3]
        self.demand(padded <= ELEMENT_LIMIT, f"at most {ELEMENT_LIMIT} values with the padding", f"{padded}")
        return (x.shape[0], slide.out_height, slide.out_width, channels)
