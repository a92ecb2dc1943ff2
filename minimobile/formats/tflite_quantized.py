"""From a TFLite file's tensors and operators to a quantised network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.tflite_model import ABSENT, Model, Operator
from minimobile.quantized.network import Network, Operation, Tensor


def to_network(model: Model, where: str) -> Network:
    """Return the network of a file; an operator that we do not have is named in a FormatError."""
    names = [f"{tensor.name}" for tensor in model.tensors]
    tensors = {}
    for name, tensor in zip(names, model.tensors, strict=True):
        quantization = tensor.quantization
        tensors[name] = Tensor(
            name,
            tensor.shape,
            np.dtype(tensor.dtype),
            np.array(quantization.scales if quantization else (), np.float32),
            np.array(quantization.zero_points if quantization else (), np.int64),
            quantization.dimension if quantization else 0,
            tensor.data,
        )
    operations = []
    for operator in model.operators:
        if operator.kind not in _OPERATIONS:
            raise FormatError(f"{where}: expected an operator of MobileNets, found {operator.kind}")
        op, read = _OPERATIONS[operator.kind]
        inputs = tuple(names[index] for index in operator.inputs if index != ABSENT)
        operations.append(Operation(op, inputs, names[operator.outputs[0]], read(operator, model)))
    return Network(
        tensors, tuple(operations), tuple(names[i] for i in model.inputs), tuple(names[i] for i in model.outputs)
    )


Options = Mapping[str, Any]


def _activation(options: Options) -> str:
    return "linear" if options["activation"] == "none" else str(options["activation"])


def _convolution(operator: Operator, model: Model) -> Options:
    options = operator.options
    return {
        "stride": options["stride_h"],
        "dilation": options["dilation_h"],
        "padding": options["padding"],
        "activation": _activation(options),
    }


def _pool(operator: Operator, model: Model) -> Options:
    options = operator.options
    return {
        "kernel_size": (options["filter_h"], options["filter_w"]),
        "stride": options["stride_h"],
        "padding": options["padding"],
        "activation": _activation(options),
    }


def _activated(operator: Operator, model: Model) -> Options:
    return {"activation": _activation(operator.options)}


def _nothing(operator: Operator, model: Model) -> Options:
    return {}


def _plain(operator: Operator, model: Model) -> Options:
    return dict(operator.options)


_OPERATIONS: Mapping[str, tuple[str, Callable[[Operator, Model], Options]]] = {
    "CONV_2D": ("conv2d", _convolution),
    "DEPTHWISE_CONV_2D": ("depthwise_conv2d", _convolution),
    "FULLY_CONNECTED": ("fully_connected", _activated),
    "ADD": ("add", _activated),
    "AVERAGE_POOL_2D": ("average_pool2d", _pool),
    "RESHAPE": ("reshape", _nothing),
    "SQUEEZE": ("reshape", _nothing),
    "SOFTMAX": ("softmax", _plain),
    "LOGISTIC": ("logistic", _nothing),
    "CONCATENATION": ("concatenate", _plain),
    "RESIZE_BILINEAR": ("resize_bilinear", _plain),
    "QUANTIZE": ("quantize", _nothing),
    "DEQUANTIZE": ("dequantize", _nothing),
    "ARG_MAX": ("argmax", _nothing),
}
