"""What float32 can explain: a layer in float64, and how far float32 may stray from it, at most and on average."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.disturbed_runs import root_mean_square, spread
from minimobile.comparison.float64_run import fold_rounded, run_nodes
from minimobile.networks.graph import Node
from minimobile.operations.estimate import Estimate
from minimobile.operations.operation import Weights
from minimobile.operations.table import is_convolution, operation_of

Array = NDArray[Any]

# A sound run of any of six engines on published networks has 0.2 to 1.2 times the deviation, rms over a layer, and its
# worst value is at most 10 deviations off. The limits leave three times as much; `estimate.MOST_DEVIATIONS` is 32.
MOST_DEVIATIONS_ON_AVERAGE = 4


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
    error, deviation = expected.limit + grid.step, expected.deviation + grid.step
    return Estimate(np.clip(expected.value, grid.low, grid.high), error, expected.magnitude, deviation)


def exact(values: Array) -> Estimate:
    """Return the estimate of values (N, H, W, C) that are known: pixels, or what a side itself has computed."""
    value = values.astype(np.float64)
    return Estimate(value, np.zeros_like(value), np.abs(value), np.zeros_like(value))


def estimate(
    nodes: Iterable[Node], weights: Weights, inputs: Mapping[str, Estimate], deviation: Array | None = None
) -> Estimate:
    """Evaluate nodes in float64, in order, and say how far off the last can be in float32. Returns its estimate.

    A path of several convolutions has no bound that says anything; its deviation is measured (`disturbed_runs.spread`),
    if it is not known from the same path with other weights. Of a single layer both are computed.

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
    nodes = tuple(nodes)
    folded = fold_rounded(nodes)
    if is_path(nodes):
        values = {name: x.value for name, x in inputs.items()}
        if deviation is None:
            value, deviation = spread(folded, weights, values, {name: x.deviation for name, x in inputs.items()})
        else:
            value = run_nodes(folded, weights, values)[folded[-1].name]
            deviation = deviation if deviation.shape == value.shape else np.zeros_like(value)
        return Estimate(value, np.full_like(value, np.inf), np.abs(value), deviation)
    known = dict(inputs)
    for node in folded:
        with np.errstate(all="ignore"):
            known[node.name] = operation_of(node).estimate(node, weights, [known[name] for name in node.inputs])
    return known[folded[-1].name]


def is_path(nodes: Iterable[Node]) -> bool:
    """Whether nodes are more than one layer: errors of one convolution go through another."""
    return sum(map(is_convolution, nodes)) > 1


def excess(expected: Estimate, found: Array) -> Array:
    """Return |found - value| as a multiple of what float32 explains for a single value: above 1 it does not.

    Shapes: found (N, H, W, C), and the result. NaN for NaN and equal infinities are no difference.
    """
    with np.errstate(all="ignore"):
        difference = np.abs(found - expected.value)
        multiple = np.where(difference == 0, 0.0, difference / expected.limit)
    return np.where(_is_same(expected, found), 0.0, np.where(np.isnan(multiple), np.inf, multiple))


def largest_excess(expected: Estimate, found: Array) -> float:
    """Return how many times more than float32 explains `found` is off: its worst value, or all of it on average.

    Shapes: found (N, H, W, C).
    """
    worst = float(excess(expected, found).max())
    with np.errstate(all="ignore"):
        difference = root_mean_square(np.where(_is_same(expected, found), 0.0, found - expected.value))
    allowed = MOST_DEVIATIONS_ON_AVERAGE * root_mean_square(expected.deviation)
    return max(worst, difference / allowed) if allowed else worst


def _is_same(expected: Estimate, found: Array) -> Array:
    with np.errstate(all="ignore"):
        is_same: Array = np.isnan(found) & np.isnan(expected.value) | (found == expected.value.astype(np.float32))
    return is_same
