"""What convolutions have in common: weights, batch norm folded into them, cost, and a value written out as its sum."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.convolution_bounds import estimate_convolution, estimate_rounded_convolution, find_noise
from minimobile.operations.estimate import Estimate, Noise
from minimobile.operations.folding import fold_weights, scale_sums
from minimobile.operations.operation import Array, Maps, MapShape, Operation, Rows, Weights, WeightShapes, Work
from minimobile.operations.written_out import (
    Position,
    Scalar,
    Stage,
    Term,
    WrittenOut,
    as_array,
    list_reads,
    sum_in_blocks,
)
from minimobile_kernels import reference
from minimobile_kernels.geometry import Window, window


class Convolution(Operation):
    """A node with a weight, perhaps a bias, and perhaps the weights of a batch norm that was folded into it.

    Its attribute "activation" is a clamp that it does itself, "block" how many terms make one chain of its sum,
    "weight_quantization" the range to whose grid training rounded its weights; "folds_batch_norm" is false where batch
    norm scales its sums and not its weights.
    """

    roles = ("weight",)
    attributes: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "dilation", "padding")
    is_convolution = True
    takes_clamps = True
    slides = True
    word: ClassVar[str]
    """The paper's, before the size of the kernel."""
    is_by_channel: ClassVar[bool] = False
    """Every channel has weights of its own, and meets no other."""

    @abstractmethod
    def arrange(self, weight: Array) -> Array:
        """Return a weight (C_out, C_in / groups, K_h, K_w) as the kernels take it."""

    def window(self, node: Node, height: int, width: int) -> Window:
        """Return the window with which a node slides over a `height` x `width` map."""
        size, stride, dilation, padding = (node.attributes[name] for name in self.attributes)
        return window(height, width, (size, size), stride, dilation, padding)

    def infer_shape(self, node: Node, inputs: Sequence[MapShape], weights: WeightShapes) -> MapShape:
        """Return as many channels as there are filters, and as many pixels as windows fit."""
        slide = self.window(node, *inputs[0][1:])
        return weights[node.weights["weight"]][0], slide.out_height, slide.out_width

    def layout_weights(self, node: Node, weights: Weights, dtype: type[np.floating[Any]]) -> tuple[Array, Array]:
        """Return weight and bias of a node as the kernels take them, folded and rounded once to `dtype`.

        Shapes: weight (C_out, K_h, K_w, C_in), depthwise (K_h, K_w, C), pointwise (C_out, C_in); bias (C_out).
        """
        weight, bias = fold_weights(node, weights, dtype)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.arrange(weight)), _round_bias(bias, dtype)

    def layout_scaled(
        self, node: Node, weights: Weights, dtype: type[np.floating[Any]]
    ) -> tuple[Array, Array, Array | None]:
        """Return weight, bias and the factor of each channel's sums (None: one), as the kernels compute with them.

        Shapes: as in `layout_weights`, factor (C_out).
        """
        weight, factor, bias = scale_sums(node, weights, dtype)
        with np.errstate(over="ignore"):
            arranged = np.ascontiguousarray(self.arrange(weight))
            return arranged, _round_bias(bias, dtype), None if factor is None else factor.astype(dtype)

    def work(self, node: Node, out: MapShape, weights: WeightShapes) -> Work:
        """Return what a node costs: every weight is used once for every pixel of the result."""
        size, count = node.attributes.get("kernel_size", 1), math.prod(weights[node.weights["weight"]])
        kind = "Fully Connected" if node.name == "classifier" else f"{self.word} {size}x{size}"
        return Work(kind, out[1] * out[2] * count, count)

    def block(self, node: Node) -> int:
        """Return how many terms make one chain of the sum."""
        return int(node.attributes.get("block", reference.BLOCK))

    def estimate(self, node: Node, weights: Weights, inputs: Sequence[Estimate]) -> Estimate:
        """Evaluate a node in float64, and bound how far float32 can be from that."""
        is_rounded = "weight_quantization" in node.attributes
        estimate = estimate_rounded_convolution if is_rounded else estimate_convolution
        return estimate(self.evaluate, node, weights, inputs[0])

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return the deviations of a node's own roundings, its input (N, H, W, C) being exact."""
        return find_noise(self.evaluate, node, weights, inputs[0], value)

    def row_fields(self, rows: Rows, node: Node) -> dict[str, Any]:
        """Return the fields that every convolution's row has."""
        return {**rows.weights(node), "block": self.block(node)}

    def write_out(self, node: Node, weights: Weights, maps: Maps, at: Position) -> WrittenOut:
        """Write one value out: the terms of its window, the sums of their blocks, and the bias."""
        x = maps[node.inputs[0]]
        weight, bias, factor = self.layout_scaled(node, weights, x.dtype.type)
        channels: Sequence[int] = [at[2]] if self.is_by_channel else range(x.shape[2])
        weight = weight[..., at[2]].ravel() if self.is_by_channel else weight[at[2]].ravel()
        slide = self.window(node, *x.shape[:2])
        reads = list_reads(slide, at, channels)
        is_inside = [0 <= y < slide.height and 0 <= column < slide.width for _, (y, column, _) in reads]
        read = [x[where] if inside else 0 for (_, where), inside in zip(reads, is_inside, strict=True)]
        pixels = np.array(read, x.dtype)
        running, stages = sum_in_blocks(pixels, weight, np.array(is_inside), self.block(node))
        with np.errstate(all="ignore"):
            products = pixels.astype(np.float64) * weight
        terms = tuple(
            Term(tap, where, pixel if inside else None, w, product if inside else None, so_far)
            for (tap, where), inside, pixel, w, product, so_far in zip(
                reads, is_inside, pixels, weight, products, running, strict=True
            )
        )
        finished = _finish(stages[-1].value, bias[at[2]], None if factor is None else factor[at[2]])
        return WrittenOut(node.inputs[0], terms, self.block(node), (*stages, *finished))


def _round_bias(bias: Array, dtype: type[np.floating[Any]]) -> Array:
    """Round a bias; what is so small that it comes to -0 becomes 0, for `filter.py` relies on that."""
    rounded: Array = bias.astype(dtype) + dtype(0)
    return rounded


def _finish(total: Scalar, bias: Scalar, factor: Scalar | None) -> tuple[Stage, ...]:
    """Return what becomes of a sum: the bias added, or first the factor of batch norm taken, rounded together."""
    if factor is None:
        return (Stage("bias", bias, reference.add(as_array(total), as_array(bias))[0]),)
    with np.errstate(all="ignore"):
        product = np.float64(total) * np.float64(factor)  # exact for float32
    result = reference.fma(as_array(total), as_array(factor), as_array(bias))[0]
    return Stage("times batch norm's factor", factor, product), Stage("bias", bias, result)
