"""From a quantised TFLite file to the float network that it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.dialects import settle_bytes
from minimobile.formats.tflite.tflite_model import ABSENT, Model, Operator, Tensor
from minimobile.formats.tflite.tflite_schema import QUANTIZED_RANGES

Settings = Mapping[str, Any]
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
MOVED_BYTES = ("QUANTIZE", "DEQUANTIZE")
SCALE_DIFFERENCE = 0.02  # of a bias, in steps of the result: TensorFlow Lite, GetQuantizedConvolutionMultipler


def is_quantized(model: Model) -> bool:
    """Say whether a convolution's weights are bytes, or stored as bytes that the file itself turns into numbers."""
    stored = {operator.outputs[0]: operator.inputs[0] for operator in model.operators if operator.kind == "DEQUANTIZE"}
    numbers = (operator.inputs[1] for operator in model.operators if operator.kind in WEIGHTED)
    return any(model.tensors[stored.get(number, number)].dtype in QUANTIZED_RANGES for number in numbers)


def dequantize(model: Model, where: str) -> Model:
    """Return the float model that a quantised one stands for: every constant has the numbers that its bytes stand for.

    What only turns one kind of bytes into another is left out. Maps keep their names. A convolution without activation
    whose bytes stand for 0 to 6 has got relu6: older converters leave the clamping to the bytes. Raises FormatError for
    a bias that does not fit its weight, in length or, by more than LiteRT allows, in scale.
    """
    tensors = list(model.tensors)
    merged: dict[int, int] = {}
    operators = []
    for operator in model.operators:
        inputs = tuple(merged.get(number, number) for number in operator.inputs)
        if operator.kind in MOVED_BYTES and tensors[inputs[0]].dtype != "float16":
            merged[operator.outputs[0]] = inputs[0]
        else:
            operators.append(dataclasses.replace(operator, inputs=inputs, options=_activated(operator, model)))
        if operator.kind in WEIGHTED:
            _, weight, *bias = inputs
            scales = _bias_scales(model.tensors[operator.inputs[0]], model.tensors[weight])
            tensors[weight] = _dequantize_constant(model.tensors[weight], None)
            for number in (number for number in bias if number != ABSENT):
                _check_bias(model, operator, model.tensors[number], where)
                tensors[number] = _dequantize_constant(model.tensors[number], scales)
    for number, tensor in enumerate(tensors):
        if not tensor.is_constant and tensor.dtype in ("uint8", "int8", "int16"):
            tensors[number] = dataclasses.replace(tensor, dtype="float32", quantization=None)
    outputs = tuple(merged.get(number, number) for number in model.outputs)
    return dataclasses.replace(model, tensors=tuple(tensors), operators=tuple(operators), outputs=outputs)


def _activated(operator: Operator, model: Model) -> Mapping[str, Any]:
    """Return an operator's options with the relu6 that its result's bytes imply: those from 0 to 6 can tell no others.

    TensorFlow's converter of 2018 leaves it out there.
    """
    by = model.tensors[operator.outputs[0]].quantization
    low = QUANTIZED_RANGES.get(model.tensors[operator.outputs[0]].dtype, (0, 0))[0]
    is_plain = operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and operator.options.get("activation") == "none"
    if not is_plain or by is None or len(by.scales) != 1 or by.zero_points[0] != low:
        return operator.options
    is_six = abs(float(by.scales[0]) * 255 - 6) < 0.01
    return {**operator.options, "activation": "relu6"} if is_six else operator.options


def _bias_scales(x: Tensor, weight: Tensor) -> NDArray[np.float32] | None:
    """Return the scales of a convolution's sums, which its bias has whether or not the file says so."""
    if x.quantization is None or weight.quantization is None:
        return None
    scales: NDArray[np.float32] = x.quantization.scales[0] * weight.quantization.scales
    return scales


def _check_bias(model: Model, operator: Operator, bias: Tensor, where: str) -> None:
    """Refuse a bias of integers that is not one number per channel, in steps of input scale times weight scale."""
    x, weight = (model.tensors[number] for number in operator.inputs[:2])
    by, out = weight.quantization, model.tensors[operator.outputs[0]].quantization
    if bias.data is None or bias.data.dtype.kind not in "iu" or x.quantization is None or by is None:
        return
    name = f"{where}: {operator.kind} {bias.name[:200]!r}"
    count = weight.shape[-1 if operator.kind == "DEPTHWISE_CONV_2D" else 0] if weight.shape else 0
    if bias.shape != (count,) or len(by.scales) not in (1, count):
        raise FormatError(f"{name}: expected shape ({count},), as its weight {weight.shape}, found {bias.shape}")
    if bias.quantization is None or out is None:
        return
    scales = float(x.quantization.scales[0]) * by.scales.astype(np.float64)
    stated = bias.quantization.scales.astype(np.float64)
    if len(stated) not in (1, len(scales)):
        raise FormatError(f"{name}: expected as many scales as the weight's {len(scales)}, found {len(stated)}")
    differences = np.abs(scales - stated) / float(out.scales[0])
    if not differences.max() <= SCALE_DIFFERENCE:
        at = int(differences.argmax())
        raise FormatError(
            f"{name}: expected the scale of the input times that of the weight, {scales[at]:.6g}, for the bias, found "
            f"{np.broadcast_to(stated, scales.shape)[at]:.6g}; the file is damaged, copy it again"
        )


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
        shape[axis] = len(scales)  # the reader checked scales against the shape, `_check_bias` those of a bias
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
