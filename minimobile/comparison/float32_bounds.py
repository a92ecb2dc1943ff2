"""What float32 can explain: a layer's value in float64, and a bound on how far float32 may stray from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.definitions import apply_node
from minimobile.networks.graph import INPUT, Graph, Node, needed_nodes
from minimobile.networks.passes import Weights, fold_nodes, layout_weights
from minimobile.networks.shapes import CONVOLUTIONS, sliding_window
from minimobile_kernels.elementwise import CLAMPS
from minimobile_kernels.reference import fake_quantize, nudge_range

Array = NDArray[Any]

UNIT_ROUNDOFF = 2.0**-24  # of float32, to nearest
SMALLEST_NORMAL = 2.0**-126  # a runtime may take products below it for zero
# Half of that of variance + epsilon, an inverse root (5, estimated as in training for quantisation), scale, folded
# weight or mean times scale, two sums.
NORMALIZATION_ROUNDINGS = 10
CURVE_ROUNDINGS = 16  # an exponential or error function, and the arithmetic around it
LIPSCHITZ = {"sigmoid": 0.25, "silu": 1.1, "gelu": 1.13, "hardswish": 1.5}  # steepest slope, where it is not 1


@dataclass(frozen=True)
class Estimate:
    """What a node gives. Shapes: all (N, H, W, C), float64.

    `value` is its definition, `error` how far float32 can be from that, `magnitude` what the same sums would give if
    nothing in them cancelled.
    """

    value: Array
    error: Array
    magnitude: Array


@dataclass(frozen=True)
class Grid:
    """The numbers that a tensor of integers can stand for: `step` apart, from `low` to `high`."""

    step: float
    low: float
    high: float


def quantise(expected: Estimate, grid: Grid | None) -> Estimate:
    """Return the estimate of the nearest number on a grid (None: any number).

    The error grows by one step: half for rounding the result, half for the integer arithmetic that scales it (LiteRT's
    kernels differ by as much among themselves).
    """
    if grid is None:
        return expected
    error = expected.error + grid.step
    return Estimate(np.clip(expected.value, grid.low, grid.high), error, expected.magnitude)


def run_float64(graph: Graph, weights: Weights, x: Array, outputs: Sequence[str]) -> dict[str, Array]:
    """Evaluate named nodes in float64, batch norm kept as it is trained. Shapes: x (N, H, W, C), and the results.

    It is folded where training rounded the folded weights.
    """
    values = {INPUT: x.astype(np.float64)}
    for node in _fold_rounded(needed_nodes(graph, outputs)):
        values[node.name] = evaluate(node, weights, [values[name] for name in node.inputs])
    return {name: values[name] for name in outputs}


def evaluate(node: Node, weights: Weights, inputs: list[Array]) -> Array:
    """Compute one node in float64 as `reference.py` defines it, but for the order of summation in a 1x1 convolution.

    That is a matrix product here, which takes a tenth of the time for a DeepLab at 513 pixels; in float64 the order
    makes 2**-29 of the difference that it makes in float32. Shapes: inputs and result (N, H, W, C).
    """
    if node.op != "pointwise_conv2d":
        return apply_node(node, weights, inputs)
    weight, bias = layout_weights(node, weights, np.float64)
    pixels = inputs[0].reshape(-1, weight.shape[1])  # (N*H*W, C_in)
    with np.errstate(all="ignore"):
        mixed: Array = pixels @ weight.T + bias
    return mixed.reshape(*inputs[0].shape[:3], -1)


def exact(values: Array) -> Estimate:
    """Return the estimate of values (N, H, W, C) that are known: pixels, or what a side itself has computed."""
    value = values.astype(np.float64)
    return Estimate(value, np.zeros_like(value), np.abs(value))


def estimate(nodes: Iterable[Node], weights: Weights, inputs: Mapping[str, Estimate]) -> Estimate:
    """Evaluate nodes in float64, in order, and bound the error of the last in float32. Returns the last's estimate.

    `nodes` keep batch norm apart from convolutions; the bound holds whether a runtime folds it or not, and for every
    order of summation, with fused multiply-adds or without. It follows from the standard model of floating point,
    fl(x op y) = (x op y)(1 + d) with |d| <= u = 2**-24, under which n roundings in a row are a factor within
    1 + gamma(n), gamma(n) = n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition,
    lemma 3.1 and section 3.1). With e for the bound on an input's error, m for its magnitude |x| + e:

        convolution, n terms     e' = sum |w| e + gamma(n + 1) m',     m' = sum |w| m + |b|
        batch norm, scale s      e' = |s| e + gamma(10) m',            m' = |s| m + |s mean| + |shift|
        sum                      e' = e1 + e2 + gamma(1) (m1 + m2)
        mean of n pixels         e' = mean e + gamma(n + 1) mean m
        relu, relu6              e' = e: no rounding, and no slope above 1
        another activation f     e' = L e + gamma(16) (|x| + |f(x)|),  L the steepest slope of f
        bilinear resize          e' = resize e + gamma(8) (H + W) max m: positions are rounded, too
        weights on a grid        folded in float32, then rounded: those within gamma(10) |w| of the middle between two
                                 steps may go either way, which adds a step times m

    Folding batch norm rounds each product s w once more and adds s w x up in place of w x: every term has then as many
    roundings as before, in another order, which is why batch norm's m' builds on the convolution's m' and not on its
    result. Terms below the smallest normal number may be lost entirely, and are added to e'.
    """
    known = dict(inputs)
    last = None
    for node in _fold_rounded(tuple(nodes)):
        last = known[node.name] = _estimate_node(node, weights, [known[name] for name in node.inputs])
    assert last is not None
    return last


def excess(expected: Estimate, found: Array) -> Array:
    """Return |found - value| as a multiple of the error that float32 explains: above 1 it does not.

    Shapes: found (N, H, W, C), and the result. NaN for NaN and equal infinities are no difference.
    """
    with np.errstate(all="ignore"):
        difference = np.abs(found - expected.value)
        multiple = np.where(difference == 0, 0.0, difference / expected.error)
        is_same = (np.isnan(found) & np.isnan(expected.value)) | (found == expected.value.astype(np.float32))
    return np.where(is_same, 0.0, np.where(np.isnan(multiple), np.inf, multiple))


def _gamma(count: int) -> float:
    return count * UNIT_ROUNDOFF / (1 - count * UNIT_ROUNDOFF)


def _fold_rounded(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Fold batch norm where training rounded the folded weights: nothing else gives the same numbers."""
    pairs = zip(nodes, fold_nodes(nodes), strict=True)
    return tuple(folded if "weight_quantization" in folded.attributes else node for node, folded in pairs)


def _estimate_node(node: Node, weights: Weights, inputs: list[Estimate]) -> Estimate:
    with np.errstate(all="ignore"):
        if "weight_quantization" in node.attributes:
            return _estimate_rounded_convolution(node, weights, inputs[0])
        value = evaluate(node, weights, [x.value for x in inputs])
        if node.op in CONVOLUTIONS:
            return _estimate_convolution(node, weights, inputs[0], value)
        if node.op == "batch_norm":
            return _estimate_batch_norm(node, weights, inputs[0], value)
        error = _plain_error(node, inputs, value)
        return Estimate(value, error, np.abs(value) + error)


def _estimate_convolution(node: Node, weights: Weights, x: Estimate, value: Array) -> Estimate:
    absolute = {name: np.abs(weights[name]) for name in node.weights.values()}
    terms = math.prod(weights[node.weights["weight"]].shape[1:])
    magnitude = evaluate(node, absolute, [np.abs(x.value) + x.error])
    error = _gamma(terms + 1) * magnitude + terms * SMALLEST_NORMAL
    if x.error.any():
        without_bias = {**absolute, **{node.weights[role]: np.zeros(1) for role in ("bias",) if role in node.weights}}
        error = error + evaluate(node, without_bias, [x.error])
    return Estimate(value, error, magnitude)


def _estimate_rounded_convolution(node: Node, weights: Weights, x: Estimate) -> Estimate:
    """Estimate a convolution whose weights, batch norm folded in, were rounded to a grid."""
    weight = weights[node.weights["weight"]].astype(np.float64)
    bias = weights[node.weights["bias"]].astype(np.float64) if "bias" in node.weights else np.zeros(len(weight))
    bias_error, bias_magnitude, slack = np.zeros_like(bias), np.abs(bias), 0.0
    if "scale" in node.weights:
        scale, shift, mean, variance = (
            weights[node.weights[role]].astype(np.float64) for role in ("scale", "shift", "mean", "variance")
        )
        scale = scale / np.sqrt(variance + node.attributes["epsilon"])
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        slack = _gamma(NORMALIZATION_ROUNDINGS)
        bias_magnitude = (bias_magnitude + np.abs(mean)) * np.abs(scale) + np.abs(shift)
        bias_error, bias = slack * bias_magnitude, (bias - mean) * scale + shift
    grid = nudge_range(*node.attributes["weight_quantization"])
    low, rounded, high = (
        fake_quantize((weight + shifted * slack * np.abs(weight)).astype(np.float32), grid).astype(np.float64)
        for shifted in (-1, 0, 1)
    )
    attributes = {name: value for name, value in node.attributes.items() if name != "weight_quantization"}
    plain = Node(node.name, node.op, node.inputs, attributes, {"weight": "weight", "bias": "bias"})
    terms = math.prod(weight.shape[1:])
    value = evaluate(plain, {"weight": rounded, "bias": bias}, [x.value])
    reach = np.abs(x.value) + x.error
    magnitude = evaluate(plain, {"weight": np.maximum(np.abs(low), np.abs(high)), "bias": bias_magnitude}, [reach])
    error = _gamma(terms + 1) * magnitude + terms * SMALLEST_NORMAL
    error = error + evaluate(plain, {"weight": np.abs(rounded), "bias": bias_error}, [x.error])
    error = error + evaluate(plain, {"weight": high - low, "bias": np.zeros(1)}, [reach])
    return Estimate(value, error, magnitude)


def _estimate_batch_norm(node: Node, weights: Weights, x: Estimate, value: Array) -> Estimate:
    weight, shift, mean, variance = (
        weights[node.weights[role]].astype(np.float64) for role in ("weight", "bias", "mean", "variance")
    )
    scale = np.abs(weight / np.sqrt(variance + node.attributes["epsilon"]))
    magnitude = x.magnitude * scale + np.abs(mean) * scale + np.abs(shift)
    return Estimate(value, x.error * scale + _gamma(NORMALIZATION_ROUNDINGS) * magnitude, magnitude)


def _plain_error(node: Node, inputs: list[Estimate], value: Array) -> Array:
    """Return the error bound of a node without weights."""
    x = inputs[0]
    magnitudes = [np.abs(term.value) + term.error for term in inputs]
    if node.op == "activation":
        function = node.attributes["function"]
        error: Array = LIPSCHITZ.get(function, 1.0) * x.error
        return error if function in CLAMPS else error + _gamma(CURVE_ROUNDINGS) * (magnitudes[0] + np.abs(value))
    if node.op == "fake_quantize":  # a value between two steps may go either way
        rounded: Array = x.error + nudge_range(*node.attributes["quantization"]).step
        return rounded
    if node.op == "add":
        total: Array = x.error + inputs[1].error + _gamma(1) * (magnitudes[0] + magnitudes[1])
        return total
    spread: Array = evaluate(node, {}, [term.error for term in inputs])
    if node.op in ("average_pool2d", "global_average_pool2d"):
        slide = sliding_window(node, *x.value.shape[1:3])
        rounding = _gamma(slide.kernel_height * slide.kernel_width + 1)
        spread += rounding * evaluate(node, {}, magnitudes)
    elif node.op == "resize_bilinear" and x.value.shape[1:3] != (1, 1):  # of a single pixel: a copy
        spread += _gamma(8) * sum(x.value.shape[1:3]) * magnitudes[0].max(axis=(1, 2), keepdims=True)
    return spread
