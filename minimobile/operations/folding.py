"""The weights of a convolution as they are computed with: batch norm folded in, and rounded where training did so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.graph import Node
from minimobile_kernels.reference import fake_quantize, nudge_range

Floats = NDArray[np.float32]
Weights = Mapping[str, NDArray[Any]]
NORMALIZATION = ("scale", "shift", "mean", "variance")
"""The roles of a batch norm's weights in the convolution that it is folded into."""
VECTOR = 8  # floats, of the instructions that TensorFlow's builds for x86 take


def fold_weights(
    node: Node, weights: Weights, dtype: type[np.floating[Any]] = np.float64
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of a convolution node, batch norm folded in: computed in float64, and so is the bias.

    weight * scale / sqrt(variance + epsilon), and shift - mean * scale / sqrt(variance + epsilon). With the attribute
    "weight_quantization" that is done by `fold_as_trained`, and the folded weight rounded to the grid of that range,
    in float32. The weight is rounded once to `dtype`, as it is computed: arrays of float64 in between would take longer
    than all the rest. Source: Jacob et al. (arXiv 1712.05877), section 3.2, equation 14.

    Shapes: weight (C_out, C_in / groups, K_h, K_w), as it is stored; bias (C_out).
    """
    weight: NDArray[Any] = weights[node.weights["weight"]]
    bias: NDArray[Any] = (
        weights[node.weights["bias"]].astype(np.float64) if "bias" in node.weights else np.zeros(len(weight))
    )
    if "scale" in node.weights:
        scale, shift, mean, variance = (weights[node.weights[role]].astype(np.float64) for role in NORMALIZATION)
        epsilon = node.attributes["epsilon"]
        with np.errstate(all="ignore"):
            if "weight_quantization" in node.attributes:
                weight, bias = fold_as_trained(weight, bias, scale, shift, mean, variance, epsilon)
            else:
                scale = scale / np.sqrt(variance + epsilon)
                factor = scale.reshape(-1, *[1] * (weight.ndim - 1))
                folded = np.empty(weight.shape, dtype)
                weight = np.multiply(weight, factor, out=folded, dtype=np.float64, casting="same_kind")
                bias = (bias - mean) * scale + shift
    with np.errstate(over="ignore"):
        if "weight_quantization" in node.attributes:
            weight = fake_quantize(weight.astype(np.float32), nudge_range(*node.attributes["weight_quantization"]))
        return weight.astype(dtype, copy=False), bias + 0.0  # -0 becomes 0


def is_folded(node: Node) -> bool:
    """Tell whether a batch norm of a convolution node is in its weights; training for quantisation puts it there."""
    return node.attributes.get("folds_batch_norm", True) or "weight_quantization" in node.attributes


def scale_sums(
    node: Node, weights: Weights, dtype: type[np.floating[Any]]
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    """Return weight, factor and bias of a convolution node: its sums times the factor, plus the bias.

    The weight is rounded to `dtype`, factor and bias are float64. With batch norm in the weights (`is_folded`) the
    factor is None. Otherwise the weight is the file's, the factor scale / sqrt(variance + epsilon), and the bias holds
    batch norm's shift: where folding rounds every weight, only a channel's factor is rounded, to `dtype`, and the bias
    takes that back at the mean of the sums. (With the bias of the exact factor a detector's error to float64 was 1.06
    times as large.) Shapes: as in `fold_weights`, factor (C_out).
    """
    if is_folded(node) or "scale" not in node.weights:
        weight, bias = fold_weights(node, weights, dtype)
        return weight, None, bias
    plain = {role: name for role, name in node.weights.items() if role not in NORMALIZATION}
    weight, bias = fold_weights(dataclasses.replace(node, weights=plain), weights, dtype)
    factor, shift, mean = normalization_factors(node, weights, ("scale", "shift"))
    with np.errstate(all="ignore"):
        factor = factor.astype(dtype).astype(np.float64)
        return weight, factor, (bias - mean) * factor + shift + 0.0


def normalization_factors(
    node: Node, weights: Weights, roles: tuple[str, str] = ("weight", "bias")
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return scale / sqrt(variance + epsilon), shift and mean of a batch norm, (C) each, in float64.

    The roles of scale and shift are the first two of `NORMALIZATION` where it is folded into a convolution.
    """
    scale, shift, mean, variance = (
        weights[node.weights[role]].astype(np.float64) for role in (*roles, *NORMALIZATION[2:])
    )
    with np.errstate(all="ignore"):
        return scale / np.sqrt(variance + node.attributes["epsilon"]), shift, mean


def fold_as_trained(
    weight: NDArray[Any],
    bias: NDArray[Any],
    scale: NDArray[Any],
    shift: NDArray[Any],
    mean: NDArray[Any],
    variance: NDArray[Any],
    epsilon: float,
) -> tuple[Floats, Floats]:
    """Fold batch norm in float32, rounded at every operation, as the graph of the training does it.

    With factor = scale * inverse_root(variance + epsilon): weight * factor, and shift - (mean - bias) * factor.
    Shapes: weight (C, ...) and the first result, all others (C).
    """
    weight, bias, scale, shift, mean, variance = (
        np.asarray(values, np.float32) for values in (weight, bias, scale, shift, mean, variance)
    )
    factor = scale * inverse_root(variance + np.float32(epsilon))
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), shift - (mean - bias) * factor


def inverse_root(x: Floats) -> Floats:
    """Return 1 / sqrt(x), wrong in the last bits as TensorFlow's `Rsqrt` is. Shape: x (C), and the result.

    Whole vectors are estimates y from a table and a Newton step, y + (-y / 2) * (x * y * y - 1), rounded at every
    operation; what is left of the last vector is divided. The table is that of Intel's RSQRTPS: 1 / sqrt of the middle
    of each 1024th of an octave, to 13 bits. (On a processor with another table TensorFlow has other bits.)
    Source: Eigen, `generic_rsqrt_newton_step`; measured on all floats from 1 to 4.

    >>> inverse_root(np.full(9, 2, np.float32))[[0, 8]]
    array([0.7071067 , 0.70710677], dtype=float32)
    """
    with np.errstate(all="ignore"):
        plain = np.float32(1) / np.sqrt(x)
        fraction, exponent = np.frexp(x.astype(np.float64))
        middle = np.ldexp(np.floor(fraction * 2048) + 0.5, exponent - 11)
        fraction, exponent = np.frexp(1 / np.sqrt(middle))
        estimate = np.ldexp(np.floor(fraction * 8192 + 0.5), exponent - 13).astype(np.float32)
        refined = estimate + np.float32(-0.5) * estimate * (x * estimate * estimate - 1)
    is_estimated = (np.arange(len(x)) < len(x) // VECTOR * VECTOR) & (x > 0) & np.isfinite(x)
    result: Floats = np.where(is_estimated, refined, plain)
    return result
