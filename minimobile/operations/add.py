"""The sum of two maps: a residual connection."""

from __future__ import annotations

from collections.abc import Sequence

from minimobile.networks.graph import Node
from minimobile.operations.estimate import ONE_ROUNDING, Estimate, Noise, gamma
from minimobile.operations.operation import Array, Maps, Operation, Rows, Weights
from minimobile.operations.written_out import Position, Scalar, Stage, as_array
from minimobile_kernels import reference


class Add(Operation):
    """The first input is the residual. Source: Sandler et al. (arXiv 1801.04381), section 3.3."""

    inputs = (2,)
    title = "Add"
    is_sum = True
    takes_clamps = True
    is_stage = True
    rounded_step = "add"

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        x, y = inputs
        return reference.add(x, y)

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return both errors, and one rounding."""
        x, y = inputs
        total: Array = x.error + y.error + gamma(1) * (x.reach + y.reach)
        return total

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return one rounding."""
        return Noise(ONE_ROUNDING * abs(value), 0 * value)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row."""
        rows.add("add", node, rows.second(node))

    def stage(self, node: Node, value: Scalar, maps: Maps, at: Position) -> Stage:
        """Write out what is added to a value."""
        residual = maps[node.inputs[0]][at]
        total = reference.add(as_array(residual), as_array(value))[0]
        return Stage(f"residual {node.inputs[0]}", residual, total)
