"""What every kernel takes for granted of a quantised network, checked before any of them runs.

The compiled kernels check nothing: a shape that does not follow from the others would read beyond a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.quantized.arithmetic import ACTIVATIONS
from minimobile.quantized.network import Network, Operation, Tensor, shorten
from minimobile_kernels.geometry import window
from minimobile_kernels.quantized.reference import ADDED_BITS
from minimobile_kernels.quantized.reference_activations import DIFFERENCE_BITS

BYTES = (np.dtype(np.uint8), np.dtype(np.int8))
ELEMENT_LIMIT = 2**28  # of one map, and of one image with its padding
DEPTHWISE_TAPS = 256  # whose sums of products of bytes float32 holds exactly
SCALES = (2.0**-40, 2.0**40)  # of maps; what an activation or a byte stands for stays far inside float32
_BITS = 31  # of a sum and of what it is shifted to

Shape = tuple[int, ...]


def check_network(network: Network, where: str) -> None:
    """Raise FormatError for the first operation whose tensors do not fit each other or the kernels.

    Afterwards: one input and one output; every shape follows from the shapes before it; every byte has one scale and
    zero point; weights and biases are constants of the right shape; sums of products fit int32; factors fit theirs.
    """
    for names, what in ((network.inputs, "input"), (network.outputs, "output")):
        if len(names) != 1:
            raise FormatError(f"{where}: expected one {what} of the network, found {len(names)}")
    _Reading(network, where, None).settle_input(network.tensors[network.inputs[0]])
    for operation in network.operations:
        _Reading(network, where, operation).check()


class _Reading:
    """One operation under examination."""

    def __init__(self, network: Network, where: str, operation: Operation | None) -> None:
        self.tensors = network.tensors
        self.where = where
        self.operation: Any = operation

    def check(self) -> None:
        operation, out = self.operation, self.tensors[self.operation.output]
        self.demand(out.values is None, "a result that is no constant", f"the constant {shorten(out.name)}")
        for tensor in (self.tensors[name] for name in operation.inputs[: _IMAGES.get(operation.op)]):
            self.demand(tensor.values is None, "values computed before it", f"the constant {shorten(tensor.name)}")
            self.check_map(tensor)
        self.check_map(out)
        shape = _SHAPES[operation.op](self, out)
        self.demand(min(shape, default=1) >= 1, "a result of at least one value", f"the shape {shape}")
        self.demand(out.shape == shape, f"a result of shape {shape}", f"{out.shape}")

    def settle_input(self, tensor: Tensor) -> None:
        is_picture = len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.values is None
        if not is_picture or tensor.dtype not in (*BYTES, np.float32):
            raise FormatError(
                f"{self.where}: expected an input of one picture (1, H, W, C) in uint8, int8 or float32, found "
                f"{tensor.dtype} {tensor.shape}"
            )

    def demand(self, is_right: bool, expected: str, found: str) -> None:
        if not is_right:
            at = f"{self.operation.op} {shorten(self.operation.output)}"
            raise FormatError(f"{self.where}: {at}: expected {expected}, found {found}")

    def inputs(self, *counts: int) -> list[Tensor]:
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
        self.demand(len(tensor.shape) == rank, f"{shorten(tensor.name)} of {rank} dimensions", f"{tensor.shape}")

    def check_activation(self) -> None:
        function = self.operation.attributes["activation"]
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
        attributes = self.operation.attributes
        stride, dilation, padding = attributes["stride"], attributes.get("dilation", 1), attributes["padding"]
        height, width = kernel_size
        self.demand(min(height, width, stride, dilation) >= 1, "a window, stride and dilation of at least 1", "less")
        slide = window(x.shape[1], x.shape[2], (height, width), stride, dilation, padding)
        reach = [size + (side - 1) * dilation + stride for size, side in zip(x.shape[1:3], kernel_size, strict=True)]
        padded = x.shape[0] * math.prod(reach) * x.shape[3]
        self.demand(padded <= ELEMENT_LIMIT, f"at most {ELEMENT_LIMIT} values with the padding", f"{padded}")
        return (x.shape[0], slide.out_height, slide.out_width, channels)


def _conv2d(reading: _Reading, out: Tensor) -> Shape:
    x, weight, *bias = reading.inputs(2, 3)
    reading.check_rank(x, 4)
    reading.check_rank(weight, 4)
    reading.demand(weight.shape[3] == x.shape[3], f"a weight for {x.shape[3]} channels", f"{weight.shape}")
    reading.demand(min(weight.shape) >= 1, "a weight of at least one value", f"{weight.shape}")
    reading.check_product(x, weight, bias[0] if bias else None, out, 0)
    return reading.slide(x, weight.shape[1:3], weight.shape[0])


def _depthwise_conv2d(reading: _Reading, out: Tensor) -> Shape:
    x, weight, *bias = reading.inputs(2, 3)
    reading.check_rank(x, 4)
    reading.check_rank(weight, 4)
    is_right = weight.shape[0] == 1 and weight.shape[3] == x.shape[3] and min(weight.shape) >= 1
    reading.demand(is_right, f"a weight (1, K_h, K_w, {x.shape[3]}), one filter per channel", f"{weight.shape}")
    taps = weight.shape[1] * weight.shape[2]
    reading.demand(taps <= DEPTHWISE_TAPS, f"a filter of at most {DEPTHWISE_TAPS} taps", f"{weight.shape}")
    reading.check_product(x, weight, bias[0] if bias else None, out, 3)
    return reading.slide(x, weight.shape[1:3], weight.shape[3])


def _fully_connected(reading: _Reading, out: Tensor) -> Shape:
    x, weight, *bias = reading.inputs(2, 3)
    reading.check_rank(weight, 2)
    is_right = min(weight.shape) >= 1 and weight.shape[1] == x.shape[-1]
    reading.demand(is_right, f"a weight for {x.shape[-1]} values", f"{weight.shape}")
    reading.check_product(x, weight, bias[0] if bias else None, out, 0)
    rows = (math.prod(x.shape[:-1]),)
    return (*(x.shape[:-1] if reading.operation.attributes.get("keep_num_dims") else rows), weight.shape[0])


def _add(reading: _Reading, out: Tensor) -> Shape:
    x, y = reading.inputs(2)
    reading.check_bytes(x, y, out)
    reading.check_activation()
    reading.demand(y.shape == x.shape, f"a second input of shape {x.shape}", f"{y.shape}")
    ratio = max(float(x.scale), float(y.scale)) / float(out.scale)
    largest = 2 ** (ADDED_BITS - 1)
    is_right = 1 / largest <= ratio < largest
    reading.demand(is_right, f"a scale for the result within {largest} times that of its inputs", f"{out.scale:g}")
    return x.shape


def _average_pool2d(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(x, out)
    reading.check_rank(x, 4)
    reading.check_same_scale(x, out)
    reading.check_activation()
    kernel_size = reading.operation.attributes["kernel_size"]
    return reading.slide(x, kernel_size, x.shape[3])


def _mean(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(x, out)
    attributes = reading.operation.attributes
    axes = attributes["axes"]
    is_right = len(set(axes)) == len(axes) and all(0 <= axis < len(x.shape) for axis in axes)
    reading.demand(is_right, f"axes of {len(x.shape)} dimensions, each once", f"{list(axes)}")
    count = math.prod(x.shape[axis] for axis in axes)
    reading.check_factor(float(x.scale) / float(out.scale), 255 * count)
    if attributes["keep_dims"]:
        return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return tuple(size for axis, size in enumerate(x.shape) if axis not in axes)


def _reshape(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.demand(x.dtype == out.dtype, f"a result of {x.dtype}", f"{out.dtype}")
    is_same = math.prod(x.shape) == math.prod(out.shape)
    reading.demand(is_same, f"a shape of as many values as {x.shape}", f"{out.shape}")
    if x.dtype in BYTES:
        reading.check_same_scale(x, out)
    return out.shape


def _softmax(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    _check_share(reading, x, out)
    beta = reading.operation.attributes["beta"]
    factor = beta * float(x.scale) * 2.0**DIFFERENCE_BITS
    is_right = math.isfinite(factor) and beta > 0 and factor > 1
    reading.demand(is_right, "a beta above zero that, times the scale, is at least 2**-26", f"{beta:g}")
    return x.shape


def _logistic(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    _check_share(reading, x, out)
    return x.shape


def _check_share(reading: _Reading, x: Tensor, out: Tensor) -> None:
    """The result's bytes are 256ths, from the smallest byte."""
    reading.check_bytes(x, out)
    lowest = int(np.iinfo(out.dtype).min)
    is_right = float(out.scale) == 1 / 256 and out.zero == lowest
    reading.demand(is_right, f"a result with the scale 1/256 and the zero point {lowest}", f"{out.scale}, {out.zero}")


def _concatenate(reading: _Reading, out: Tensor) -> Shape:
    inputs = reading.inputs(*range(1, len(reading.operation.inputs) + 1))
    reading.check_bytes(*inputs, out)
    attributes = reading.operation.attributes
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


def _resize_bilinear(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(x, out)
    reading.check_same_scale(x, out)
    reading.check_rank(x, 4)
    reading.check_rank(out, 4)
    attributes = reading.operation.attributes
    is_right = not (attributes["align_corners"] and attributes["half_pixel_centers"])
    reading.demand(is_right, "align_corners or half_pixel_centers", "both")
    is_right = max(*x.shape[1:3], *out.shape[1:3]) < 2**15
    reading.demand(is_right, "sides of less than 32768 pixels, as its 10-bit positions need", f"{out.shape}")
    return (x.shape[0], *out.shape[1:3], x.shape[3])


def _quantize(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(out)
    is_right = x.dtype in (*BYTES, np.float32)
    reading.demand(is_right, f"{shorten(x.name)} of float32, uint8 or int8", f"{x.dtype}")
    if x.dtype in BYTES:
        reading.check_factor(float(x.scale) / float(out.scale), 255)
    return x.shape


def _dequantize(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(x)
    reading.demand(out.dtype == np.float32, "a result of float32", f"{out.dtype}")
    return x.shape


def _pad(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(x, out)
    reading.check_same_scale(x, out)
    padding = reading.operation.attributes["padding"]
    is_right = len(padding) == len(x.shape) and all(min(pair) >= 0 for pair in padding)
    reading.demand(is_right, f"{len(x.shape)} pairs of zero or more", f"{list(padding)[:9]}")
    return tuple(before + size + after for size, (before, after) in zip(x.shape, padding, strict=True))


def _argmax(reading: _Reading, out: Tensor) -> Shape:
    (x,) = reading.inputs(1)
    reading.check_bytes(x)
    reading.demand(out.dtype in (np.int32, np.int64), "a result of int32 or int64", f"{out.dtype}")
    axis = reading.operation.attributes["axis"]
    reading.demand(0 <= axis < len(x.shape), f"an axis of {len(x.shape)} dimensions", f"{axis}")
    return (*x.shape[:axis], *x.shape[axis + 1 :])


_IMAGES: Mapping[str, int] = {"conv2d": 1, "depthwise_conv2d": 1, "fully_connected": 1}
"""How many inputs are maps, where it is not all of them: the others are weights."""
_SHAPES: Mapping[str, Callable[[_Reading, Tensor], Shape]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "fully_connected": _fully_connected,
    "add": _add,
    "average_pool2d": _average_pool2d,
    "mean": _mean,
    "reshape": _reshape,
    "softmax": _softmax,
    "logistic": _logistic,
    "concatenate": _concatenate,
    "resize_bilinear": _resize_bilinear,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "pad": _pad,
    "argmax": _argmax,
}
