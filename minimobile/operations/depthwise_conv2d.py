"""Depthwise convolution: every channel with a filter of its own."""

from __future__ import annotations

from collections.abc import Sequence

from minimobile.networks.graph import Node
from minimobile.operations.convolution import Convolution
from minimobile.operations.operation import Array, Rows, Weights, window_fields
from minimobile_kernels import reference


class DepthwiseConv2d(Convolution):
    """The middle of a separable layer. Source: Howard et al. (arXiv 1704.04861), section 3.1."""

    word = "Conv DW"
    short_name = "dwise"
    is_by_channel = True
    filters_rows = True

    def arrange(self, weight: Array) -> Array:
        """Return (K_h, K_w, C)."""
        arranged: Array = weight[:, 0].transpose(1, 2, 0)
        return arranged

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        (x,) = inputs
        weight, bias, factor = self.layout_scaled(node, weights, x.dtype.type)
        return reference.depthwise_conv2d(x, weight, bias, self.window(node, *x.shape[1:3]), factor)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row."""
        rows.add("depthwise_conv2d", node, window_fields(rows.window(node)) | self.row_fields(rows, node))
