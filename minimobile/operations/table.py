"""The table of all operations, and what is asked of it most often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.activation import Activation
from minimobile.operations.add import Add
from minimobile.operations.average_pool2d import AveragePool2d
from minimobile.operations.batch_norm import BatchNorm
from minimobile.operations.concatenate import Concatenate
from minimobile.operations.conv2d import Conv2d
from minimobile.operations.convolution import Convolution
from minimobile.operations.depthwise_conv2d import DepthwiseConv2d
from minimobile.operations.fake_quantize import FakeQuantize
from minimobile.operations.global_average_pool2d import GlobalAveragePool2d
from minimobile.operations.operation import Array, Operation, Weights
from minimobile.operations.pointwise_conv2d import PointwiseConv2d
from minimobile.operations.resize_bilinear import ResizeBilinear

CONVOLUTIONS: Mapping[str, Convolution] = {
    "conv2d": Conv2d(),
    "depthwise_conv2d": DepthwiseConv2d(),
    "pointwise_conv2d": PointwiseConv2d(),
}
OPERATIONS: Mapping[str, Operation] = {
    **CONVOLUTIONS,
    "batch_norm": BatchNorm(),
    "activation": Activation(),
    "fake_quantize": FakeQuantize(),
    "add": Add(),
    "average_pool2d": AveragePool2d(),
    "global_average_pool2d": GlobalAveragePool2d(),
    "resize_bilinear": ResizeBilinear(),
    "concatenate": Concatenate(),
}


def operation_of(node: Node) -> Operation:
    """Return what a node does."""
    return OPERATIONS[node.op]


def is_convolution(node: Node) -> bool:
    """Tell whether a node has a kernel of weights."""
    return OPERATIONS[node.op].is_convolution


def layout_weights(node: Node, weights: Weights, dtype: type[np.floating[Any]]) -> tuple[Array, Array]:
    """Return weight and bias of a convolution node as the kernels take them; see `Convolution.layout_weights`."""
    return CONVOLUTIONS[node.op].layout_weights(node, weights, dtype)
