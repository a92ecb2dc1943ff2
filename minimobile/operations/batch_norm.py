"""Batch norm, as it is trained: kept apart from the convolution before it, until it is folded into that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.estimate import NORMALIZATION_ROUNDINGS, ONE_ROUNDING, Estimate, Noise, gamma
from minimobile.operations.folding import normalization_factors
from minimobile.operations.operation import Array, Operation, Weights
from minimobile_kernels import reference

ROLES = ("weight", "bias", "mean", "variance")


class BatchNorm(Operation):
    """Source: Ioffe and Szegedy (arXiv 1502.03167). It has no kernel: every one that runs is folded."""

    attributes = ("epsilon",)
    short_name = "norm"
    roles = ROLES
    is_normalization = True
    is_step = True
    rounded_step = "normalization"

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition."""
        (x,) = inputs
        scale, shift, mean, variance = (weights[node.weights[role]] for role in ROLES)
        return reference.batch_norm(x, scale, shift, mean, variance, node.attributes["epsilon"])

    def estimate(self, node: Node, weights: Weights, inputs: Sequence[Estimate]) -> Estimate:
        """Evaluate a node in float64, and say how far float32 can be from that."""
        (x,) = inputs
        value = self.evaluate(node, weights, [x.value])
        factor, shift, mean = normalization_factors(node, weights)
        scale = np.abs(factor)
        magnitude = x.magnitude * scale + np.abs(mean) * scale + np.abs(shift)
        deviation = np.hypot(x.deviation * scale, np.hypot(*self.noise(node, weights, [x.value], value)))
        return Estimate(value, x.error * scale + gamma(NORMALIZATION_ROUNDINGS) * magnitude, magnitude, deviation)

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return those of every value's sums, and those of a channel's factor and shift."""
        factor, shift, mean = normalization_factors(node, weights)
        moved = np.abs(mean * factor)
        independent = np.sqrt(value**2 + (inputs[0] * factor) ** 2 + moved**2 + shift**2)
        scaled = NORMALIZATION_ROUNDINGS / 2 * (value - shift) ** 2
        return Noise(ONE_ROUNDING * independent, ONE_ROUNDING * np.sqrt(scaled + (moved + np.abs(shift)) ** 2))
