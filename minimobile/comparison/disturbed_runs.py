"""A path of several layers with every rounding disturbed: what float32's errors come to at its end.

The disturbed runs need not be exact themselves: with errors a thousand times those of float32, which a network hands on
in proportion, float32 is good enough to run them in, batch norm folded. Networks that round to integers on the way do
not hand on in proportion, and are run in float64 with errors of float32's own size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.float64_run import evaluate, run_nodes
from minimobile.networks.graph import Node
from minimobile.operations.estimate import NORMALIZATION_ROUNDINGS, ONE_ROUNDING
from minimobile.operations.folding import normalization_factors
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_nodes
from minimobile.operations.shapes import sliding_window
from minimobile.operations.table import is_convolution, layout_weights, operation_of

Array = NDArray[Any]

RUNS = 8
BY_PIXEL, BY_CHANNEL = 2, 3  # dimensions of a kernel: (C_out, C_in) of a pointwise one, (K_h, K_w, C) of a depthwise
AMPLIFICATION = 1024.0
# Deviations, as a share of each value, of what a narrower number type makes of kernels: float16 of floats; 7 bits of 8.
NARROWER, NARROWER_GRID = 2.0**-12, 2.0**-5


class _Step(NamedTuple):
    """A node to run, batch norm folded into it; `deviation` (N, H, W, C) is that of each value's own rounding errors.

    Of a convolution: kernel and bias as the kernels take them, and what each channel's bias is made of.
    """

    node: Node
    deviation: Array | None
    kernel: Array | None = None
    bias: Array | None = None
    shift: Array | None = None
    moved: Array | None = None


def spread(
    nodes: Sequence[Node], weights: Weights, inputs: Mapping[str, Array], input_deviations: Mapping[str, Array]
) -> tuple[Array, Array]:
    """Evaluate nodes in float64, in order, once as they are and `RUNS` times with every rounding disturbed.

    Returns the last node's value and the deviation of its error, which is nowhere taken for less than its rms: eight
    runs say little of a single value. The errors are drawn from a fixed seed. Shapes: all (N, H, W, C).
    """
    is_rounded = _is_rounded(nodes)
    factor = 1.0 if is_rounded else AMPLIFICATION
    values = dict(inputs)
    deviations: dict[str, Array] = {}
    for node in nodes:
        read = [values[name] for name in node.inputs]
        values[node.name] = evaluate(node, weights, read)
        with np.errstate(all="ignore"):
            own = operation_of(node).noise(node, weights, read, values[node.name]).independent
            if operation_of(node).is_normalization and node.inputs[0] in deviations:
                own = np.hypot(own, deviations[node.inputs[0]] * normalization_factors(node, weights)[0])
        deviations[node.name] = own
    steps = _prepare(nodes, weights, deviations, is_rounded)
    truth, random = values[nodes[-1].name], np.random.default_rng(0)
    squares = np.zeros_like(truth)
    with np.errstate(all="ignore"):
        for _ in range(RUNS):
            found = {
                name: _cast(x + factor * input_deviations[name] * random.standard_normal(x.shape), is_rounded)
                for name, x in inputs.items()
            }
            squares += ((_run(steps, weights, found, random, factor) - truth) / factor) ** 2
        deviation = np.sqrt(squares / RUNS)
        return truth, np.maximum(deviation, root_mean_square(deviation))


def run_narrower(nodes: Sequence[Node], weights: Weights, inputs: Mapping[str, Array]) -> Array:
    """Evaluate nodes with kernels (where there are none, inputs) as far off as a narrower number type makes them.

    That is float16 for floats, 7 bits for 8: the smallest fault in common use. Limits that do not see it see nothing.
    Shapes: inputs and result (N, H, W, C).
    """
    random, is_rounded = np.random.default_rng(0), _is_rounded(nodes)
    share = NARROWER_GRID if is_rounded else NARROWER
    if any(map(is_convolution, nodes)):
        weights = _disturb_kernels(nodes, weights, random, share)
    else:
        inputs = {name: x * (1 + share * random.standard_normal(x.shape)) for name, x in sorted(inputs.items())}
    return run_nodes(nodes, weights, inputs)[nodes[-1].name]


def root_mean_square(values: Array) -> float:
    """Return the root of the mean square of what is finite."""
    finite = values[np.isfinite(values)]
    return math.sqrt(float(np.mean(np.square(finite)))) if finite.size else 0.0


def _is_rounded(nodes: Sequence[Node]) -> bool:
    return any(operation_of(node).rounds or "weight_quantization" in node.attributes for node in nodes)


def _cast(values: Array, is_rounded: bool) -> Array:
    return values if is_rounded else values.astype(np.float32)


def _disturb_kernels(
    nodes: Sequence[Node], weights: Weights, random: np.random.Generator, deviation: float
) -> dict[str, Array]:
    """Return the weights with every kernel of the nodes' convolutions off by a random share of itself, in float64."""
    disturbed = dict(weights)
    for node in nodes:
        if is_convolution(node):
            kernel = weights[node.weights["weight"]].astype(np.float64)
            disturbed[node.weights["weight"]] = kernel * (1 + deviation * random.standard_normal(kernel.shape))
    return disturbed


def _prepare(nodes: Sequence[Node], weights: Weights, deviations: Mapping[str, Array], is_rounded: bool) -> list[_Step]:
    """Fold batch norms, drop the convolutions that are now part of them, and lay out the weights."""
    folded = fold_nodes(nodes)
    read = {name for node in folded for name in node.inputs} | {folded[-1].name}
    steps = []
    for node in folded:
        if node.name not in read:
            continue
        deviation = deviations[node.name] if deviations[node.name].any() else None
        deviation = deviation if deviation is None else _cast(deviation, is_rounded)
        if not is_convolution(node) or "weight_quantization" in node.attributes:
            steps.append(_Step(node, deviation))
            continue
        kernel, bias = layout_weights(node, weights, np.float64)
        shift, moved = np.zeros_like(bias), np.abs(bias)
        if "scale" in node.weights:
            scale, shift, mean = normalization_factors(node, weights, ("scale", "shift"))
            moved = np.abs(mean * scale) + np.abs(shift)
        steps.append(_Step(node, deviation, _cast(kernel, is_rounded), bias, shift, moved))
    return steps


def _run(
    steps: Sequence[_Step], weights: Weights, found: dict[str, Array], random: np.random.Generator, factor: float
) -> Array:
    """Run the steps once, every rounding off by a random error, `factor` times that of float32."""
    y = np.zeros(0)
    for step in steps:
        read = [found[name] for name in step.node.inputs]
        if step.kernel is not None:
            y = _convolve(step.node, *_disturb(step, random, factor), read[0])
        else:
            changed = weights
            if is_convolution(step.node):  # rounded to integers: disturbed before that
                changed = _disturb_kernels([step.node], weights, random, math.sqrt(2) * ONE_ROUNDING)
            y = operation_of(step.node).define(step.node, changed, read)
        if step.deviation is not None:
            error = random.random(y.shape, np.float32)
            error -= np.float32(0.5)  # uniform: its deviation is 1 / sqrt(12)
            y = y + error * step.deviation * y.dtype.type(math.sqrt(12) * factor)
        found[step.node.name] = y
    return y


def _disturb(step: _Step, random: np.random.Generator, factor: float) -> tuple[Array, Array]:
    """Return a kernel and a bias as rounding may leave them: each value off, and each channel by a common factor."""
    assert step.kernel is not None and step.bias is not None and step.shift is not None and step.moved is not None
    kernel, channels = step.kernel, len(step.bias)
    has_norm = "scale" in step.node.weights
    common = 1 + factor * ONE_ROUNDING * math.sqrt(NORMALIZATION_ROUNDINGS / 2) * has_norm * random.standard_normal(
        channels
    )
    bias = step.shift + (step.bias - step.shift) * common
    bias += factor * ONE_ROUNDING * step.moved * random.standard_normal(channels)
    share = random.random(kernel.shape, np.float32)
    share -= np.float32(0.5)
    share *= np.float32(factor * ONE_ROUNDING * math.sqrt(2 * 12))
    share += 1
    along = common if kernel.ndim == BY_CHANNEL else common.reshape(-1, *[1] * (kernel.ndim - 1))
    return kernel * share * along.astype(kernel.dtype), bias.astype(kernel.dtype)


def _convolve(node: Node, kernel: Array, bias: Array, x: Array) -> Array:
    """Convolve without a defined order of summation. Shapes: as `layout_weights` has them; x, result (N, H, W, C).

    Products are NumPy's own, not BLAS's: on a busy machine its threads wait for one another at every layer, which took
    V2 at 96 x 96 43 seconds in place of 6 at load 12.
    """
    if kernel.ndim == BY_PIXEL:
        mixed: Array = np.einsum("pc,oc->po", x.reshape(-1, x.shape[3]), kernel) + bias
        return mixed.reshape(*x.shape[:3], len(bias))
    n, height, width, _ = x.shape
    slide = sliding_window(node, height, width)
    rows, columns = (
        (outputs - 1) * slide.stride + (size - 1) * slide.dilation + 1
        for outputs, size in ((slide.out_height, slide.kernel_height), (slide.out_width, slide.kernel_width))
    )
    padded = np.zeros((n, max(rows, slide.pad_top + height), max(columns, slide.pad_left + width), x.shape[3]), x.dtype)
    padded[:, slide.pad_top : slide.pad_top + height, slide.pad_left : slide.pad_left + width] = x
    y = np.zeros((n, slide.out_height, slide.out_width, len(bias)), x.dtype)
    y += bias
    for row in range(slide.kernel_height):
        for column in range(slide.kernel_width):
            top, left = row * slide.dilation, column * slide.dilation
            seen = padded[:, top : top + (slide.out_height - 1) * slide.stride + 1 : slide.stride]
            seen = seen[:, :, left : left + (slide.out_width - 1) * slide.stride + 1 : slide.stride]
            if kernel.ndim == BY_CHANNEL:
                y += seen * kernel[row, column]
            else:
                y += np.einsum("nhwc,oc->nhwo", seen, kernel[:, row, column])
    return y
