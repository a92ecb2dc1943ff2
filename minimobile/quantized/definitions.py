"""One operation of a quantised network on the definitions of the kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.arithmetic import activation_range, change_of_scale, full_range, product_scaling
from minimobile.quantized.network import Operation, Tensor
from minimobile_kernels.geometry import Window, window
from minimobile_kernels.quantized import reference, reference_activations, reference_maps
from minimobile_kernels.quantized.reference_maps import Affine

Array = NDArray[Any]


class _Call(NamedTuple):
    """An operation with what it reads: tensors and their arrays, in one order."""

    attributes: Mapping[str, Any]
    inputs: list[Tensor]
    arrays: list[Array]
    out: Tensor
    bytes_of: str

    @property
    def bias(self) -> Array:
        return self.arrays[2] if len(self.arrays) > 2 else np.zeros(self.out.shape[-1], np.int32)


def apply(operation: Operation, tensors: Mapping[str, Tensor], values: Mapping[str, Array], bytes_of: str) -> Array:
    """Return the output of one operation; `values` are those of the tensors that are no constants."""
    inputs = [tensors[name] for name in operation.inputs]
    arrays = [values[tensor.name] if tensor.values is None else tensor.values for tensor in inputs]
    call = _Call(operation.attributes, inputs, arrays, tensors[operation.output], bytes_of)
    return _DEFINITIONS[operation.op](call)


def _conv2d(call: _Call) -> Array:
    x, weight = call.inputs[:2]
    return reference.conv2d(
        call.arrays[0], x.zero, call.arrays[1], weight.zero, call.bias, _slide(call, weight.shape[1:3]),
        product_scaling(x, weight, call.out), activation_range(call.attributes["activation"], call.out), call.bytes_of,
    )  # fmt: skip


def _depthwise_conv2d(call: _Call) -> Array:
    x, weight = call.inputs[:2]
    return reference.depthwise_conv2d(
        call.arrays[0], x.zero, call.arrays[1][0], weight.zero, call.bias, _slide(call, weight.shape[1:3]),
        product_scaling(x, weight, call.out), activation_range(call.attributes["activation"], call.out), call.bytes_of,
    )  # fmt: skip


def _fully_connected(call: _Call) -> Array:
    x, weight = call.inputs[:2]
    found = reference.conv2d(
        call.arrays[0].reshape(-1, 1, 1, weight.shape[1]), x.zero, call.arrays[1][:, None, None, :], weight.zero,
        call.bias, window(1, 1, (1, 1), 1, 1, "VALID"), product_scaling(x, weight, call.out),
        activation_range(call.attributes["activation"], call.out), call.bytes_of,
    )  # fmt: skip
    return found.reshape(call.out.shape)


def _average_pool2d(call: _Call) -> Array:
    _, low, high = activation_range(call.attributes["activation"], call.out)
    return reference.average_pool2d(call.arrays[0], _slide(call, call.attributes["kernel_size"]), low, high)


def _add(call: _Call) -> Array:
    x, y = call.inputs
    scales = (float(x.scale), float(y.scale), float(call.out.scale))
    to = activation_range(call.attributes["activation"], call.out)
    return reference.add(call.arrays[0], x.zero, call.arrays[1], y.zero, scales, to, call.bytes_of)


def _mean(call: _Call) -> Array:
    (x,) = call.inputs
    axes, to = call.attributes["axes"], full_range(call.out)
    found = reference_maps.mean(call.arrays[0], x.zero, axes, change_of_scale(x, call.out), to, call.bytes_of)
    return found.reshape(call.out.shape)


def _reshape(call: _Call) -> Array:
    return call.arrays[0].reshape(call.out.shape)


def _softmax(call: _Call) -> Array:
    return reference_activations.softmax(call.arrays[0], float(call.inputs[0].scale), call.attributes["beta"])


def _logistic(call: _Call) -> Array:
    return reference_activations.logistic(call.arrays[0], float(call.inputs[0].scale), call.inputs[0].zero)


def _concatenate(call: _Call) -> Array:
    own = [_affine(x) for x in call.inputs]
    return reference_maps.concatenate(call.arrays, own, _affine(call.out), call.attributes["axis"])


def _resize_bilinear(call: _Call) -> Array:
    _, height, width, _ = call.out.shape
    return reference_maps.resize_bilinear(call.arrays[0], height, width, **call.attributes)


def _quantize(call: _Call) -> Array:
    (x,), out = call.inputs, call.out
    if x.dtype == np.float32:
        return reference_maps.quantize(call.arrays[0], _affine(out), out.dtype)
    by, to = change_of_scale(x, out), full_range(out)
    return reference_maps.requantize_bytes(call.arrays[0], x.zero, by, to, out.dtype, call.bytes_of)


def _dequantize(call: _Call) -> Array:
    return reference_maps.dequantize(call.arrays[0], _affine(call.inputs[0]))


def _pad(call: _Call) -> Array:
    return reference_maps.pad(call.arrays[0], call.attributes["padding"], call.out.zero)


def _argmax(call: _Call) -> Array:
    return reference_maps.argmax(call.arrays[0], call.attributes["axis"], call.out.dtype)


def _slide(call: _Call, kernel_size: tuple[int, ...]) -> Window:
    _, height, width, _ = call.arrays[0].shape
    dilation = call.attributes.get("dilation", 1)
    kernel_height, kernel_width = kernel_size
    size = (kernel_height, kernel_width)
    return window(height, width, size, call.attributes["stride"], dilation, call.attributes["padding"])


def _affine(tensor: Tensor) -> Affine:
    return Affine(tensor.scale, tensor.zero)


_DEFINITIONS: Mapping[str, Callable[[_Call], Array]] = {
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
