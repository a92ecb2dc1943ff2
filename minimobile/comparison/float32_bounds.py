"""What float32 can explain: a layer's value in float64, and a bound on how far float32 may stray from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.graph import INPUT, Graph, Node, needed_nodes
from minimobile.operations.estimate import Estimate
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_nodes
from minimobile.operations.table import operation_of

Array = NDArray[Any]


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
        values[node.name] = operation_of(node).evaluate(node, weights, [values[name] for name in node.inputs])
    return {name: values[name] for name in outputs}


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
        with np.errstate(all="ignore"):
            last = operation_of(node).estimate(node, weights, [known[name] for name in node.inputs])
        known[node.name] = last
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


def _fold_rounded(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Fold batch norm where training rounded the folded weights: nothing else gives the same numbers."""
    pairs = zip(nodes, fold_nodes(nodes), strict=True)
    return tuple(folded if "weight_quantization" in folded.attributes else node for node, folded in pairs)
