"""The rounding of values to the steps of a range, as training for quantisation does it."""

from __future__ import annotations

from collections.abc import Sequence

from minimobile.networks.graph import Node
from minimobile.operations.estimate import GRID_ROUNDINGS, Estimate, gamma
from minimobile.operations.operation import Array, Maps, Operation, Rows, Weights
from minimobile.operations.written_out import Position, Scalar, Stage, as_array
from minimobile_kernels import reference


class FakeQuantize(Operation):
    """Its attribute "quantization" is a `FakeQuantization`."""

    attributes = ("quantization",)
    is_stage = True
    rounds = True

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        return reference.fake_quantize(inputs[0], _grid(node))

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return a step for a value that lies between two, and may go either way; others cannot."""
        grid = _grid(node)
        slack = gamma(GRID_ROUNDINGS) * (grid.high - grid.low)
        error: Array = self.change(node, inputs[0].value, inputs[0].limit + slack, value) + slack
        return error

    def carry(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return the bound: such steps are not distributed as errors are."""
        return self.error(node, inputs, value)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row, with the grid's steps."""
        grid = _grid(node)
        rows.add("fake_quantize", node, {"low": grid.low, "high": grid.high, "scale": grid.step, "zero": grid.zero})

    def stage(self, node: Node, value: Scalar, maps: Maps, at: Position) -> Stage:
        """Write out to which step a value is rounded."""
        grid = _grid(node)
        return Stage("rounded to steps of", grid.step, reference.fake_quantize(as_array(value), grid)[0])


def _grid(node: Node) -> reference.Grid:
    return reference.nudge_range(*node.attributes["quantization"])
