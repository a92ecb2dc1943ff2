"""Known faults of weights and of what is done with them: batch norm, activations, precision, layouts, exchanged layers.

Of a path each is tried on all its layers at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.float32_bounds import excess, quantise
from minimobile.comparison.float64_run import run_nodes
from minimobile.comparison.suspect import Array, Candidate, Suspect, as_floats
from minimobile.networks.config import ACTIVATIONS
from minimobile.networks.graph import Node
from minimobile.operations.folding import normalization_factors
from minimobile.operations.table import CONVOLUTIONS, is_convolution, operation_of
from minimobile_kernels.elementwise import CLAMPS

EPSILONS = (1e-3, 1e-5, 1e-4, 1e-6, 1e-2, 1e-7, 1e-8, 1e-12, 0.0)


def other_epsilon(suspect: Suspect) -> Iterator[Candidate]:
    """Batch norm with the epsilon of another school."""
    first = next(suspect.normalizations(), None)
    own = None if first is None else first.attributes["epsilon"]
    for epsilon in EPSILONS if own is not None else ():
        if epsilon != own:
            changed = suspect.with_attributes(suspect.normalizations(), epsilon=epsilon)
            yield Candidate(f"batch norm: epsilon {epsilon:g}; ours is {own:g}", changed, suspect.found)


def other_activation(suspect: Suspect) -> Iterator[Candidate]:
    """ReLU for ReLU6, or any other activation, or none."""
    first = next(suspect.nodes_with("function"), None)
    own = None if first is None else first.attributes["function"]
    for function in (*ACTIVATIONS, "linear") if own is not None else ():
        if function not in (own, "swish"):
            changed = suspect.with_attributes(suspect.nodes_with("function"), function=function)
            name = "none" if function == "linear" else function
            yield Candidate(f"activation: {name}; ours is {own}", changed, suspect.found)


def forgotten_normalization(suspect: Suspect) -> Iterator[Candidate]:
    """Batch norm left out, or one of its four arrays; or done with the statistics of this batch, as in training."""
    nodes = tuple(suspect.normalizations())
    if not nodes:
        return

    def leave_out(node: Node) -> Node:
        if node not in nodes:
            return node
        return dataclasses.replace(node, op="activation", attributes={"function": "linear"}, weights={})

    yield Candidate("batch norm: left out", suspect.with_nodes(leave_out), suspect.found)
    for roles, (words, value) in FORGOTTEN.items():
        constants = {
            node.weights[role]: np.full_like(suspect.weights[node.weights[role]], value)
            for role in roles
            for node in nodes
        }
        yield Candidate(f"batch norm: {words}", suspect.with_weights(constants), suspect.found)
    if not suspect.is_path:
        before = suspect.nodes[: suspect.nodes.index(nodes[0])]
        inputs = {name: x.value for name, x in suspect.inputs.items()}
        x = run_nodes(before, suspect.weights, inputs)[nodes[0].inputs[0]]
        names = nodes[0].weights
        statistics = {names["mean"]: x.mean((0, 1, 2)), names["variance"]: x.var((0, 1, 2))}
        sentence = "batch norm: with the mean and variance of this batch, as in training (a module not set to eval)"
        yield Candidate(sentence, suspect.with_weights(statistics), suspect.found)


def forgotten_bias(suspect: Suspect) -> Iterator[Candidate]:
    """A convolution or a classifier without its bias."""
    names = [node.weights["bias"] for node in suspect.convolutions() if "bias" in node.weights]
    zeros = {name: np.zeros_like(suspect.weights[name]) for name in names if suspect.weights[name].any()}
    if zeros:
        sentence = f"weights: {' and '.join(zeros)} forgotten, as if zero"
        yield Candidate(sentence, suspect.with_weights(zeros), suspect.found)


def other_precision(suspect: Suspect) -> Iterator[Candidate]:
    """Weights that were rounded to 16 bits: kernels alone, every array, or with batch norm folded into them."""
    convolutions = tuple(suspect.convolutions())
    if not convolutions:
        return
    kernels = {node.weights["weight"] for node in convolutions}
    arrays = {name for node in suspect.nodes for name in node.weights.values()}
    folded = _fold(suspect)
    for kind, rounding in PRECISIONS.items():
        for words, names in (("rounded", arrays), ("kernels rounded, the rest not,", kernels)):
            changed = {name: rounding(as_floats(suspect.weights, name)) for name in sorted(names)}
            yield Candidate(f"weights: {words} to {kind}", suspect.with_weights(changed), suspect.found)
        if folded:
            names = kernels | {node.weights["bias"] for node in suspect.normalizations()}
            for words, rounded in (("and biases ", names), ("", kernels)):
                changed = {name: rounding(values) if name in rounded else values for name, values in folded.items()}
                sentence = f"weights: folded kernels {words}rounded to {kind}"
                yield Candidate(sentence, suspect.with_weights(changed), suspect.found)


def _fold(suspect: Suspect) -> dict[str, Array]:
    """Return kernels with batch norm folded in, and batch norms that only add what is left of them."""
    named, changed = {node.name: node for node in suspect.nodes}, {}
    for node in suspect.normalizations():
        convolution = named.get(node.inputs[0])
        if convolution is not None and is_convolution(convolution):
            scale, shift, mean = normalization_factors(node, suspect.weights)
            kernel, names = as_floats(suspect.weights, convolution.weights["weight"]), node.weights
            changed[convolution.weights["weight"]] = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
            changed[names["bias"]], changed[names["mean"]] = shift - mean * scale, np.zeros_like(mean)
            changed[names["weight"]] = np.ones_like(mean)
            changed[names["variance"]] = np.full_like(mean, 1 - node.attributes["epsilon"])
    return changed


def exchanged_layers(suspect: Suspect) -> Iterator[Candidate]:
    """The weights of another layer of the same shape: all of them, the kernel, or the batch norm."""
    if suspect.is_path:
        return
    own = [name for node in suspect.nodes for name in node.weights.values()]
    kernels = [node.weights["weight"] for node in suspect.convolutions()]
    for kernel in kernels:
        stem, suffix = next(
            (kernel.removesuffix(end), end) for end in (".convolution.weight", ".weight") if kernel.endswith(end)
        )
        others = [
            name.removesuffix(suffix)
            for name, values in suspect.weights.items()
            if name.endswith(suffix) and name != kernel and values.shape == suspect.weights[kernel].shape
        ]
        for other in others:
            pairs = {name: other + name.removeprefix(stem) for name in own if name.startswith(f"{stem}.")}
            pairs = {name: twin for name, twin in pairs.items() if twin in suspect.weights}
            for words, names in (
                ("weights", list(pairs)),
                ("kernel", [kernel]),
                ("batch norm", [name for name in pairs if name != kernel]),
            ):
                changed = {name: suspect.weights[pairs[name]] for name in names}
                if changed and all(values.shape == suspect.weights[name].shape for name, values in changed.items()):
                    sentence = f"layers exchanged: the {words} of {other}"
                    yield Candidate(sentence, suspect.with_weights(changed), suspect.found)


def other_variance(suspect: Suspect) -> Iterator[Candidate]:
    """Batch norm with another variance in some channels, fitted to those values that no activation cut off."""
    if suspect.is_path:
        return
    nodes, found, own = suspect.nodes, suspect.found, suspect.estimate()
    position = next((index for index, node in enumerate(nodes) if operation_of(node).is_normalization), len(nodes))
    tail = nodes[position + 1 :]
    is_known = position < len(nodes) and len(tail) < 2 and all("function" in node.attributes for node in tail)
    if own.value.shape != found.shape or not is_known:
        return
    epsilon, names = nodes[position].attributes["epsilon"], nodes[position].weights
    weight, shift, mean, variance = (
        suspect.weights[names[role]].astype(np.float64) for role in ("weight", "bias", "mean", "variance")
    )
    low, high = CLAMPS.get(nodes[-1].attributes.get("function", "linear"), (np.inf, -np.inf))
    is_whole = (found > low) & (found < high)
    inputs = {name: x.value for name, x in suspect.inputs.items()}
    x = np.where(is_whole, run_nodes(nodes[:position], suspect.weights, inputs)[nodes[position].inputs[0]] - mean, 0)
    y = np.where(is_whole, found - shift, 0)
    differing = np.flatnonzero(excess(quantise(own, suspect.grid), found).max(axis=(0, 1, 2)) > 1)
    with np.errstate(all="ignore"):
        slope = np.sum(x * y, axis=(0, 1, 2)) / np.sum(x * x, axis=(0, 1, 2))
        fitted = ((weight / slope) ** 2 - epsilon)[differing]
    if differing.size and np.isfinite(fitted).all():
        changed = variance.copy()
        changed[differing] = fitted
        others = f" and {differing.size - 1} others" if differing.size > 1 else ""
        yield Candidate(
            f"batch norm: in channel {differing[0]}{others} as if the variance were "
            f"{fitted[0] / variance[differing[0]]:.4g} times ours",
            suspect.with_weights({names["variance"]: changed}),
            found,
        )


def other_layout(suspect: Suspect) -> Iterator[Candidate]:
    """Kernels that were transposed, turned, or read in another layout when they were converted."""
    for kind, belongs in KERNELS.items():
        kernels = {node.weights["weight"] for node in suspect.convolutions() if belongs(node)}
        for words, change in LAYOUTS.items() if kernels else ():
            changed = {}
            for name in sorted(kernels):
                weight = suspect.weights[name]
                weight = weight if weight.ndim == 4 else weight[:, :, None, None]  # (O, I, K_h, K_w)
                turned = change(weight)
                if turned.shape == weight.shape and not np.array_equal(turned, weight):
                    changed[name] = turned.reshape(suspect.weights[name].shape)
            if changed:
                yield Candidate(f"weights: {kind} kernels {words}", suspect.with_weights(changed), suspect.found)


def misread_layout(weight: Array) -> Array:
    """Return (O, I, K_h, K_w) as TensorFlow stores it, (K_h, K_w, I, O), depthwise (K_h, K_w, O, 1), but reshaped."""
    axes = (2, 3, 1, 0) if weight.shape[1] > 1 else (2, 3, 0, 1)
    reshaped: Array = weight.transpose(axes).reshape(weight.shape)
    return reshaped


KERNELS: Mapping[str, Callable[[Node], bool]] = {
    "depthwise": lambda node: CONVOLUTIONS[node.op].is_by_channel,
    "1x1": lambda node: "kernel_size" not in node.attributes,
    "convolution": lambda node: CONVOLUTIONS[node.op].reads_pixels,
}
LAYOUTS: Mapping[str, Callable[[Array], Array]] = {
    "transposed, rows for columns": lambda weight: weight.swapaxes(2, 3),
    "turned by 180 degrees, a true convolution": lambda weight: weight[..., ::-1, ::-1],
    "flipped left to right": lambda weight: weight[..., ::-1],
    "flipped top to bottom": lambda weight: weight[..., ::-1, :],
    "with inputs for outputs": lambda weight: weight.swapaxes(0, 1),
    "in TensorFlow's layout, reshaped where they should be transposed": misread_layout,
}
FORGOTTEN: Mapping[tuple[str, ...], tuple[str, float]] = {
    ("mean",): ("its mean forgotten, as if zero", 0.0),
    ("bias",): ("its shift (beta) forgotten, as if zero", 0.0),
    ("weight",): ("its scale (gamma) forgotten, as if one", 1.0),
    ("variance",): ("its variance forgotten, as if one", 1.0),
    ("mean", "bias"): ("its mean and shift (beta) forgotten, as if zero", 0.0),
    ("weight", "variance"): ("its scale (gamma) and variance forgotten, as if one", 1.0),
}


def _to_float16(values: Array) -> Array:
    with np.errstate(over="ignore"):
        rounded: Array = values.astype(np.float32).astype(np.float16).astype(np.float64)
    return rounded


def _to_bfloat16(values: Array) -> Array:
    bits = values.astype(np.float32).view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(
        0xFFFF0000
    )
    return rounded.view(np.float32).astype(np.float64)


PRECISIONS: Mapping[str, Callable[[Array], Array]] = {"float16": _to_float16, "bfloat16": _to_bfloat16}
