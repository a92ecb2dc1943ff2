"""One operation of a quantised network on the definitions of `quantized_reference.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.arithmetic import activation_range, product_scaling
from minimobile.quantized.network import Operation, Tensor
from minimobile_kernels import quantized_reference as reference
from minimobile_kernels.geometry import Window, window

Array = NDArray[Any]


def apply(operation: Operation, tensors: Mapping[str, Tensor], values: Mapping[str, Array], rounding: str) -> Array:
    """Return the output of one operation; `values` are those of the tensors that are no constants."""
    inputs = [tensors[name] for name in operation.inputs]
    arrays = [values[tensor.name] if tensor.values is None else tensor.values for tensor in inputs]
    out = tensors[operation.output]
    result: Array = _DEFINITIONS[operation.op](operation.attributes, inputs, arrays, out, rounding)
    return result


def _conv2d(
    attributes: Mapping[str, Any], inputs: list[Tensor], arrays: list[Array], out: Tensor, rounding: str
) -> Array:
    x, weight = inputs[:2]
    slide = _slide(arrays[0], weight.shape[1:3], attributes)
    bias = arrays[2] if len(arrays) > 2 else np.zeros(out.shape[-1], np.int32)
    return reference.conv2d(
        arrays[0], x.zero, arrays[1], weight.zero, bias, slide, product_scaling(x, weight, out),
        activation_range(attributes["activation"], out), rounding,
    )  # fmt: skip


def _depthwise_conv2d(
    attributes: Mapping[str, Any], inputs: list[Tensor], arrays: list[Array], out: Tensor, rounding: str
) -> Array:
    x, weight = inputs[:2]
    slide = _slide(arrays[0], weight.shape[1:3], attributes)
    bias = arrays[2] if len(arrays) > 2 else np.zeros(out.shape[-1], np.int32)
    return reference.depthwise_conv2d(
        arrays[0], x.zero, arrays[1][0], weight.zero, bias, slide, product_scaling(x, weight, out),
        activation_range(attributes["activation"], out), rounding,
    )  # fmt: skip


def _fully_connected(
    attributes: Mapping[str, Any], inputs: list[Tensor], arrays: list[Array], out: Tensor, rounding: str
) -> Array:
    x, weight = inputs[:2]
    bias = arrays[2] if len(arrays) > 2 else np.zeros(out.shape[-1], np.int32)
    pixel = arrays[0].reshape(-1, 1, 1, weight.shape[1])
    by, to = product_scaling(x, weight, out), activation_range(attributes["activation"], out)
    slide = window(1, 1, (1, 1), 1, 1, "VALID")
    matrix = arrays[1][:, None, None, :]
    return reference.conv2d(pixel, x.zero, matrix, weight.zero, bias, slide, by, to, rounding).reshape(out.shape)


def _average_pool2d(
    attributes: Mapping[str, Any], inputs: list[Tensor], arrays: list[Array], out: Tensor, rounding: str
) -> Array:
    slide = _slide(arrays[0], attributes["kernel_size"], attributes)
    _, low, high = activation_range(attributes["activation"], out)
    return reference.average_pool2d(arrays[0], slide, low, high)


def _add(attributes: Mapping[str, Any], inputs: list[Tensor], arrays: list[Array], out: Tensor, rounding: str) -> Array:
    x, y = inputs
    scales = (float(x.scale), float(y.scale), float(out.scale))
    return reference.add(arrays[0], x.zero, arrays[1], y.zero, scales, activation_range(attributes["activation"], out))


def _reshape(
    attributes: Mapping[str, Any], inputs: list[Tensor], arrays: list[Array], out: Tensor, rounding: str
) -> Array:
    return arrays[0].reshape(out.shape)


def _slide(x: Array, kernel_size: Any, attributes: Mapping[str, Any]) -> Window:
    height, width = x.shape[1:3]
    dilation = attributes.get("dilation", 1)
    return window(height, width, tuple(kernel_size), attributes["stride"], dilation, attributes["padding"])


_DEFINITIONS: Mapping[str, Any] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "fully_connected": _fully_connected,
    "average_pool2d": _average_pool2d,
    "add": _add,
    "reshape": _reshape,
}
