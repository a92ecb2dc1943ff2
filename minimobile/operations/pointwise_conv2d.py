"""Pointwise convolution: the channels of every pixel mixed; a linear layer where there is one pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.convolution import Convolution
from minimobile.operations.operation import Array, Operation, Rows, Weights, WeightShapes
from minimobile_kernels import reference
from minimobile_kernels.geometry import Window


class PointwiseConv2d(Convolution):
    """A convolution of 1x1. A second input, where it has one, is a residual that is added after the bias."""

    inputs = (1, 2)
    attributes = ()
    word = "Conv"
    short_name = "1x1"
    takes_residuals = True
    is_expansion = True
    is_projection = True
    rounded_step = "convolution"

    def arrange(self, weight: Array) -> Array:
        """Return (C_out, C_in)."""
        return weight.reshape(len(weight), -1)

    def window(self, node: Node, height: int, width: int) -> Window:
        """Return the window of one pixel."""
        return Operation.window(self, node, height, width)

    def attributes_as_trained(self, node: Node, weights: WeightShapes) -> dict[str, Any]:
        """Return that all terms are summed in one chain."""
        return {"block": math.prod(weights[node.weights["weight"]][1:])}

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        (x,) = inputs
        weight, bias, factor = self.layout_scaled(node, weights, x.dtype.type)
        return reference.pointwise_conv2d(x, weight, bias, self.block(node), factor)

    def evaluate(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node in float64 as a matrix product.

        That takes a tenth of the definition's time for a DeepLab at 513 pixels; in float64 the order of summation makes
        2**-29 of the difference that it makes in float32.
        """
        (x,) = inputs
        weight, bias = self.layout_weights(node, weights, np.float64)
        with np.errstate(all="ignore"):
            mixed: Array = x.reshape(-1, weight.shape[1]) @ weight.T  # (N*H*W, C_out)
            mixed += bias
        return mixed.reshape(*x.shape[:3], -1)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row, and the residual's place, if it has one."""
        rows.add("pointwise_conv2d", node, self.row_fields(rows, node) | rows.second(node))
