"""Two maps, the channels of one after those of the other."""

from __future__ import annotations

from collections.abc import Sequence

from minimobile.networks.graph import Node
from minimobile.operations.operation import Array, Maps, MapShape, Operation, Rows, Weights, WeightShapes
from minimobile.operations.written_out import Position, WrittenOut, write_copy
from minimobile_kernels import reference


class Concatenate(Operation):
    """The branches of DeepLab's head. Where they can lie side by side from the start, nothing is left to do."""

    inputs = (2,)
    title = "Concatenate"
    short_name = "concat"
    joins = True

    def infer_shape(self, node: Node, inputs: Sequence[MapShape], weights: WeightShapes) -> MapShape:
        """Return all channels of both."""
        _, height, width = inputs[0]
        return sum(shape[0] for shape in inputs), height, width

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        x, y = inputs
        return reference.concatenate(x, y)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row."""
        rows.add("concatenate", node, rows.second(node))

    def write_out(self, node: Node, weights: Weights, maps: Maps, at: Position) -> WrittenOut:
        """Write out which value of which map is copied."""
        row, column, channel = at
        first, second = node.inputs
        own = maps[first].shape[2]
        source, channel = (first, channel) if channel < own else (second, channel - own)
        return write_copy(source, maps[source], (row, column, channel))
