"""From a quantised TFLite file to the float network that it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.dialects import settle_bytes
from minimobile.formats.tflite.tflite_model import ABSENT, Model, Tensor
from minimobile.formats.tflite.tflite_schema import QUANTIZED_RANGES

Settings = Mapping[str, Any]
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
MOVED_BYTES = ("QUANTIZE", "DEQUANTIZE")


def is_quantized(model: Model) -> bool:
    """Say whether a convolution's weights are bytes, or stored as bytes that the file itself turns into numbers."""
    stored = {operator.outputs[0]: operator.inputs[0] for operator in model.operators if operator.kind == "DEQUANTIZE"}
    numbers = (operator.inputs[1] for operator in model.operators if operator.kind in WEIGHTED)
    return any(model.tensors[stored.get(number, number)].dtype in QUANTIZED_RANGES for number in numbers)


def dequantize(model: Model) -> Model:
    """Return the float model that a quantised one stands for: every constant has the numbers that its bytes stand for.

    What only turns one kind of bytes into another is left out. Maps keep their names.
    """
    tensors = list(model.tensors)
    merged: dict[int, int] = {}
    operators = []
    for operator in model.operators:
        inputs = tuple(merged.get(number, number) for number in operator.inputs)
        if operator.kind in MOVED_BYTES and tensors[inputs[0]].dtype != "float16":
            merged[operator.outputs[0]] = inputs[0]
        else:
            operators.append(dataclasses.replace(operator, inputs=inputs))
        if operator.kind in WEIGHTED:
            _, weight, *bias = inputs
            scales = _bias_scales(model.tensors[operator.inputs[0]], model.tensors[weight])
            tensors[weight] = _dequantize_constant(model.tensors[weight], None)
            for number in (number for number in bias if number != ABSENT):
                tensors[number] = _dequantize_constant(model.tensors[number], scales)
    for number, tensor in enumerate(tensors):
        if not tensor.is_constant and tensor.dtype in ("uint8", "int8", "int16"):
            tensors[number] = dataclasses.replace(tensor, dtype="float32", quantization=None)
    outputs = tuple(merged.get(number, number) for number in model.outputs)
    return dataclasses.replace(model, tensors=tuple(tensors), operators=tuple(operators), outputs=outputs)


def _bias_scales(x: Tensor, weight: Tensor) -> NDArray[np.float32] | None:
    """Return the scales of a convolution's sums, which its bias has whether or not the file says so."""
    if x.quantization is None or weight.quantization is None:
        return None
    scales: NDArray[np.float32] = x.quantization.scales[0] * weight.quantization.scales
    return scales


def _dequantize_constant(tensor: Tensor, scales: NDArray[np.float32] | None) -> Tensor:
    """Return a constant with float32 values; `scales` stand in for its own."""
    by, data = tensor.quantization, tensor.data
    if data is None or data.dtype.kind not in "iu" or (by is None and scales is None):
        return tensor
    steps = data.astype(np.int64)
    axis = 0
    if scales is None:
        assert by is not None
        scales, axis = by.scales, by.dimension
    shape = [1] * data.ndim
    if len(scales) > 1:
        shape[axis] = len(scales)
    if by is not None and len(by.zero_points) == len(scales):
        steps = steps - by.zero_points.reshape(shape)
    with np.errstate(over="ignore"):
        values = (scales.astype(np.float64).reshape(shape) * steps).astype(np.float32)
    return dataclasses.replace(tensor, dtype="float32", data=values, quantization=None)


def settle_pixels(settings: Settings | None, source: Tensor) -> Settings | None:
    """Return an image processor's settings by which a picture's bytes come to a file's input tensor as they are.

    That is how such files are fed: uint8 takes the picture's bytes, int8 these minus 128. A pixel's number is then what
    the input's bytes stand for. Files with an input of float32 keep the settings of their school.
    """
    by = source.quantization
    if settings is None or by is None or source.dtype not in ("uint8", "int8"):
        return settings
    zero = int(by.zero_points[0]) + (128 if source.dtype == "int8" else 0)
    return settle_bytes(settings, float(by.scales[0]), zero, source.shape[-1])
