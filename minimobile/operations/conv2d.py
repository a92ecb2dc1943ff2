"""Dense convolution: every filter over all channels of a window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minimobile.networks.graph import Node
from minimobile.operations.convolution import Convolution
from minimobile.operations.operation import Array, Rows, Weights, WeightShapes, window_fields
from minimobile_kernels import reference


class Conv2d(Convolution):
    """The first layer of a MobileNet. Its kernel reads the caller's image as it is."""

    word = "Conv"
    short_name = "conv"
    reads_pixels = True
    is_expansion = True

    def arrange(self, weight: Array) -> Array:
        """Return (C_out, K_h, K_w, C_in)."""
        arranged: Array = weight.transpose(0, 2, 3, 1)
        return arranged

    def attributes_as_trained(self, node: Node, weights: WeightShapes) -> dict[str, Any]:
        """Return that all terms are summed in one chain."""
        return {"block": math.prod(weights[node.weights["weight"]][1:])}

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        (x,) = inputs
        weight, bias, factor = self.layout_scaled(node, weights, x.dtype.type)
        return reference.conv2d(x, weight, bias, self.window(node, *x.shape[1:3]), self.block(node), factor)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row, with the offsets of all terms of a window."""
        fields = window_fields(rows.window(node)) | self.row_fields(rows, node) | rows.taps(node)
        rows.add("conv2d", node, fields)
