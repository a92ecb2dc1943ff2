"""The table of all quantised operations."""

from __future__ import annotations

from collections.abc import Mapping

from minimobile.quantized.network import Operation
from minimobile.quantized.operations.add import Add
from minimobile.quantized.operations.argmax import Argmax
from minimobile.quantized.operations.average_pool2d import AveragePool2d
from minimobile.quantized.operations.concatenate import Concatenate
from minimobile.quantized.operations.conv2d import Conv2d
from minimobile.quantized.operations.depthwise_conv2d import DepthwiseConv2d
from minimobile.quantized.operations.dequantize import Dequantize
from minimobile.quantized.operations.fully_connected import FullyConnected
from minimobile.quantized.operations.logistic import Logistic
from minimobile.quantized.operations.look_up import LookUp
from minimobile.quantized.operations.mean import Mean
from minimobile.quantized.operations.operation import QuantizedOperation
from minimobile.quantized.operations.pad import Pad
from minimobile.quantized.operations.quantize import Quantize
from minimobile.quantized.operations.reshape import Reshape
from minimobile.quantized.operations.resize_bilinear import ResizeBilinear
from minimobile.quantized.operations.rows import Rows
from minimobile.quantized.operations.softmax import Softmax

OPERATIONS: Mapping[str, QuantizedOperation] = {
    "conv2d": Conv2d(),
    "depthwise_conv2d": DepthwiseConv2d(),
    "fully_connected": FullyConnected(),
    "add": Add(),
    "average_pool2d": AveragePool2d(),
    "mean": Mean(),
    "reshape": Reshape(),
    "softmax": Softmax(),
    "logistic": Logistic(),
    "concatenate": Concatenate(),
    "resize_bilinear": ResizeBilinear(),
    "quantize": Quantize(),
    "dequantize": Dequantize(),
    "pad": Pad(),
    "argmax": Argmax(),
    "rows": Rows(),
    "look_up": LookUp(),
}


def operation_of(operation: Operation) -> QuantizedOperation:
    """Return what an operation of a network does."""
    return OPERATIONS[operation.op]
