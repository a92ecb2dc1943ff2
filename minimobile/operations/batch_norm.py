"""Batch norm, as it is trained: kept apart from the convolution before it, until it is folded into that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.estimate import NORMALIZATION_ROUNDINGS, Estimate, gamma
from minimobile.operations.operation import Array, Operation, Weights
from minimobile_kernels import reference

ROLES = ("weight", "bias", "mean", "variance")


class BatchNorm(Operation):
    """Source: Ioffe and Szegedy (arXiv 1502.03167). It has no kernel: every one that runs is folded."""

    attributes = ("epsilon",)
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
        """Evaluate a node in float64, and bound how far float32 can be from that."""
        (x,) = inputs
        value = self.evaluate(node, weights, [x.value])
        weight, shift, mean, variance = (weights[node.weights[role]].astype(np.float64) for role in ROLES)
        scale = np.abs(weight / np.sqrt(variance + node.attributes["epsilon"]))
        magnitude = x.magnitude * scale + np.abs(mean) * scale + np.abs(shift)
        return Estimate(value, x.error * scale + gamma(NORMALIZATION_ROUNDINGS) * magnitude, magnitude)
