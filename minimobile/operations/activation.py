"""Activation functions: clamps, which the kernel before them can do, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minimobile.networks.graph import Node
from minimobile.operations.estimate import MOST_DEVIATIONS, ONE_ROUNDING, Estimate, Noise, gamma
from minimobile.operations.operation import Array, Maps, Operation, Rows, Weights
from minimobile.operations.written_out import Position, Scalar, Stage, as_array
from minimobile_kernels import reference
from minimobile_kernels.elementwise import CLAMPS, CURVES

CURVE_ROUNDINGS = 16  # an exponential or error function, and the arithmetic around it
STEEPEST = {"sigmoid": 0.25, "silu": 1.1, "gelu": 1.13, "hardswish": 1.5}  # slopes, where they are not 1


class Activation(Operation):
    """Its attribute "function" is a name of `elementwise.CLAMPS` or `elementwise.CURVES`."""

    attributes = ("function",)
    short_name = "act"
    is_stage = True
    is_step = True
    rounded_step = "activation"

    def clamp(self, node: Node) -> str | None:
        """Return relu, relu6 or linear; None for a curve."""
        function: str = node.attributes["function"]
        return function if function in CLAMPS else None

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        return reference.activation(inputs[0], node.attributes["function"])

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return what the input's error makes on the steepest slope, and a curve's own."""
        (x,) = inputs
        steepest: Array = STEEPEST.get(node.attributes["function"], 1.0) * x.error
        return steepest if self.clamp(node) else steepest + gamma(CURVE_ROUNDINGS) * (x.reach + abs(value))

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return nothing for a clamp, and of a curve the roundings of the arithmetic around it."""
        if self.clamp(node) is not None:
            return super().noise(node, weights, inputs, value)
        own = math.sqrt(CURVE_ROUNDINGS) * ONE_ROUNDING * (abs(inputs[0]) + abs(value))
        return Noise(own, 0 * own)

    def carry(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return what the function makes of the input's limits."""
        return self.change(node, inputs[0].value, inputs[0].limit, value) / MOST_DEVIATIONS

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row: which curve, or none and the limits of the clamp."""
        function = node.attributes["function"]
        low, high = CLAMPS.get(function, CLAMPS["linear"])
        curve = CURVES.index(function) if function in CURVES else -1
        rows.add("activation", node, {"curve": curve, "low": low, "high": high})

    def stage(self, node: Node, value: Scalar, maps: Maps, at: Position) -> Stage:
        """Write out what it makes of a value."""
        function = node.attributes["function"]
        return Stage(function, None, reference.activation(as_array(value), function)[0])
