"""Average pooling over windows inside the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.estimate import Estimate, Noise, gamma, noise_of_sum
from minimobile.operations.operation import (
    Array,
    Maps,
    MapShape,
    Operation,
    Rows,
    Weights,
    WeightShapes,
    window_fields,
)
from minimobile.operations.written_out import Position, Stage, Term, WrittenOut, list_reads
from minimobile_kernels import reference
from minimobile_kernels.geometry import Window, window


class AveragePool2d(Operation):
    """A fixed window, never larger than the map, without padding: the originals' pool at other sizes of image.

    Its attribute "precision" is the type in which it is summed, where that is not float64.
    """

    attributes: ClassVar[tuple[str, ...]] = ("kernel_size", "stride")
    title = "Avg Pool"
    short_name = "pool"
    slides = True
    keeps_scale = True

    def window(self, node: Node, height: int, width: int) -> Window:
        """Return the window with which a node slides over a `height` x `width` map."""
        size = node.attributes["kernel_size"]
        return window(height, width, (min(size, height), min(size, width)), node.attributes["stride"], 1, "VALID")

    def infer_shape(self, node: Node, inputs: Sequence[MapShape], weights: WeightShapes) -> MapShape:
        """Return as many pixels as windows fit."""
        channels, height, width = inputs[0]
        slide = self.window(node, height, width)
        return channels, slide.out_height, slide.out_width

    def attributes_as_trained(self, node: Node, weights: WeightShapes) -> dict[str, Any]:
        """Return that it is summed in float32."""
        return {"precision": "float32"}

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        (x,) = inputs
        return reference.average_pool2d(x, self.window(node, *x.shape[1:3]), _precision(node))

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return the mean of the input's, and that of the sum's roundings."""
        (x,) = inputs
        slide = self.window(node, *x.value.shape[1:3])
        rounding = gamma(slide.kernel_height * slide.kernel_width + 1)
        return super().error(node, inputs, value) + rounding * self.evaluate(node, {}, [x.reach])

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return that of the sum."""
        (x,) = inputs
        slide = self.window(node, *x.shape[1:3])
        terms = slide.kernel_height * slide.kernel_width
        return Noise(noise_of_sum(terms, self.evaluate(node, {}, [x**2]) / terms, value), 0 * value)

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add its row."""
        is_single = int(_precision(node) == "float32")
        rows.add("average_pool2d", node, {**window_fields(rows.window(node)), "is_single": is_single})

    def write_out(self, node: Node, weights: Weights, maps: Maps, at: Position) -> WrittenOut:
        """Write out the sum of the pixels of a window, and its division."""
        x = maps[node.inputs[0]]
        precision = np.promote_types(x.dtype, _precision(node))
        reads = list_reads(self.window(node, *x.shape[:2]), at, [at[2]])
        with np.errstate(all="ignore"):
            running = np.cumsum([0.0, *(x[where] for _, where in reads)], dtype=precision)[1:]  # in order, from zero
            mean = (running[-1] / len(reads)).astype(x.dtype)
        terms = tuple(
            Term(tap, where, x[where], None, None, so_far)
            for (tap, where), so_far in zip(reads, running, strict=True)
        )  # fmt: skip
        total = Stage(f"sum in {precision}", None, running[-1])
        divided = Stage(f"divided, as {x.dtype}", precision.type(len(reads)), mean)
        return WrittenOut(node.inputs[0], terms, len(terms), (total, divided))


def _precision(node: Node) -> str:
    return str(node.attributes.get("precision", "float64"))
