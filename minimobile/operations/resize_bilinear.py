"""Bilinear resizing to the size of another map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.estimate import ONE_ROUNDING, Estimate, Noise, gamma
from minimobile.operations.operation import Array, Maps, MapShape, Operation, Rows, Weights, WeightShapes
from minimobile.operations.written_out import Position, Stage, Term, WrittenOut, write_copy
from minimobile_kernels import reference


class ResizeBilinear(Operation):
    """The second input tells the size alone. Its attribute "align_corners" says where the corners lie."""

    inputs = (2,)
    attributes = ("align_corners",)
    title = "Resize"
    short_name = "resize"
    keeps_scale = True

    def reads(self, node: Node) -> tuple[str, ...]:
        """Return the first input."""
        return node.inputs[:1]

    def infer_shape(self, node: Node, inputs: Sequence[MapShape], weights: WeightShapes) -> MapShape:
        """Return the first input's channels at the second's size."""
        return inputs[0][0], *inputs[1][1:]

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        x, like = inputs
        return reference.resize_bilinear(x, like.shape[1], like.shape[2], node.attributes["align_corners"])

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return the input's, resized, and what rounded positions make; a single pixel is copied."""
        x, spread = inputs[0], super().error(node, inputs, value)
        if x.value.shape[1:3] == (1, 1):
            return spread
        steepest: Array = x.reach.max(axis=(1, 2), keepdims=True)
        return spread + gamma(8) * sum(x.value.shape[1:3]) * steepest

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return that of rounded positions; a single pixel is copied."""
        x, own = inputs[0], np.zeros_like(value)
        if x.shape[1:3] != (1, 1):
            own = own + ONE_ROUNDING * sum(x.shape[1:3]) * np.abs(x).max(axis=(1, 2), keepdims=True)
        return Noise(own, 0 * own)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row."""
        rows.add("resize_bilinear", node, {"align_corners": int(node.attributes["align_corners"])})

    def write_out(self, node: Node, weights: Weights, maps: Maps, at: Position) -> WrittenOut:
        """Write out the four neighbours of a value, along the rows and then between them."""
        x, (height, width) = maps[node.inputs[0]], maps[node.inputs[1]].shape[:2]
        is_aligned = node.attributes["align_corners"]
        row, column, channel = at
        if x.shape[:2] == (1, 1):
            return write_copy(node.inputs[0], x, (0, 0, channel))
        upper, lower, down = (points[row] for points in reference.interpolation_points(x.shape[0], height, is_aligned))
        left, right, across = (
            points[column] for points in reference.interpolation_points(x.shape[1], width, is_aligned)
        )
        terms: list[Term] = []
        with np.errstate(all="ignore"):
            for ky, y in enumerate((int(upper), int(lower))):
                first, second = x[y, int(left), channel], x[y, int(right), channel]
                near, far = np.float64(first) * (1 - across), np.float64(second) * across
                terms.append(Term((ky, 0), (y, int(left), channel), first, 1 - across, near, near))
                terms.append(Term((ky, 1), (y, int(right), channel), second, across, far, near + far))
            above, below = terms[1].running * (1 - down), terms[3].running * down
            value = (above + below).astype(x.dtype)
        stages = (
            Stage("upper row, times", 1 - down, above),
            Stage("and lower row, times", down, above + below),
            Stage(f"as {x.dtype}", None, value),
        )
        return WrittenOut(node.inputs[0], tuple(terms), len(terms), stages)
