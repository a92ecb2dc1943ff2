"""How far float32 can be from a convolution: with weights as they are, and with weights that training rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from minimobile.networks.graph import Node
from minimobile.operations.estimate import (
    GRID_ROUNDINGS,
    NORMALIZATION_ROUNDINGS,
    ONE_ROUNDING,
    SMALLEST_NORMAL,
    Array,
    Estimate,
    Noise,
    gamma,
    noise_of_sum,
)
from minimobile.operations.folding import NORMALIZATION, Weights, normalization_factors
from minimobile_kernels.reference import fake_quantize, nudge_range

Evaluate = Callable[[Node, Weights, Sequence[Array]], Array]


def find_noise(evaluate: Evaluate, node: Node, weights: Weights, x: Array, value: Array) -> Noise:
    """Return the deviations of a convolution's own roundings. Shapes: x, value (N, H, W, C)."""
    attributes = {name: setting for name, setting in node.attributes.items() if name != "weight_quantization"}
    roles = {role: name for role, name in node.weights.items() if role in ("weight", "bias")}
    plain = Node(node.name, node.op, node.inputs, attributes, roles)
    squares = evaluate(plain, {name: weights[name].astype(np.float64) ** 2 for name in roles.values()}, [x**2])
    if "scale" in node.weights:  # folded in
        squares = squares * normalization_factors(node, weights, ("scale", "shift"))[0] ** 2
    terms = math.prod(weights[node.weights["weight"]].shape[1:])
    return Noise(noise_of_sum(terms, squares, value) + SMALLEST_NORMAL, ONE_ROUNDING * np.sqrt(2 * squares))


def estimate_convolution(evaluate: Evaluate, node: Node, weights: Weights, x: Estimate) -> Estimate:
    """Estimate a convolution; `evaluate` computes a node in float64."""
    value = evaluate(node, weights, [x.value])
    absolute = {name: np.abs(weights[name]) for name in node.weights.values()}
    without_bias = {**absolute, **{node.weights[role]: np.zeros(1) for role in ("bias",) if role in node.weights}}
    terms = math.prod(weights[node.weights["weight"]].shape[1:])
    magnitude = evaluate(node, absolute, [x.reach])
    error = gamma(terms + 1) * magnitude + terms * SMALLEST_NORMAL
    if x.error.any():
        error = error + evaluate(node, without_bias, [x.error])
    deviation = np.hypot(*find_noise(evaluate, node, weights, x.value, value))
    if x.deviation.any():  # as if they had one sign: they may have one source
        deviation = deviation + evaluate(node, without_bias, [x.deviation])
    return Estimate(value, error, magnitude, deviation)


def estimate_rounded_convolution(evaluate: Evaluate, node: Node, weights: Weights, x: Estimate) -> Estimate:
    """Estimate a convolution whose weights, batch norm folded in, were rounded to a grid."""
    weight = weights[node.weights["weight"]].astype(np.float64)
    bias = weights[node.weights["bias"]].astype(np.float64) if "bias" in node.weights else np.zeros(len(weight))
    bias_error, bias_magnitude, slack = np.zeros_like(bias), np.abs(bias), 0.0
    if "scale" in node.weights:
        scale, shift, mean, variance = (weights[node.weights[role]].astype(np.float64) for role in NORMALIZATION)
        scale = scale / np.sqrt(variance + node.attributes["epsilon"])
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        slack = gamma(NORMALIZATION_ROUNDINGS)
        bias_magnitude = (bias_magnitude + np.abs(mean)) * np.abs(scale) + np.abs(shift)
        bias_error, bias = slack * bias_magnitude, (bias - mean) * scale + shift
    grid = nudge_range(*node.attributes["weight_quantization"])
    reach = slack * np.abs(weight) + gamma(GRID_ROUNDINGS) * (grid.high - grid.low)
    low, rounded, high = (
        fake_quantize((weight + shifted * reach).astype(np.float32), grid).astype(np.float64) for shifted in (-1, 0, 1)
    )
    attributes = {name: value for name, value in node.attributes.items() if name != "weight_quantization"}
    plain = Node(node.name, node.op, node.inputs, attributes, {"weight": "weight", "bias": "bias"})
    terms = math.prod(weight.shape[1:])
    value = evaluate(plain, {"weight": rounded, "bias": bias}, [x.value])
    magnitude = evaluate(plain, {"weight": np.maximum(np.abs(low), np.abs(high)), "bias": bias_magnitude}, [x.reach])
    error = gamma(terms + 1) * magnitude + terms * SMALLEST_NORMAL
    error = error + evaluate(plain, {"weight": np.abs(rounded), "bias": bias_error}, [x.error])
    error = error + evaluate(plain, {"weight": high - low, "bias": np.zeros(1)}, [x.reach])
    return Estimate(value, error, magnitude, error)  # steps of weights are not distributed as errors are
