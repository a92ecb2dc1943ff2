"""What comparisons end in: a verdict, and what a difference looks like, by known faults as hypotheses, each tried on
the one layer that differs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.float32_bounds import Grid, estimate, exact, excess, quantise
from minimobile.formats.dialects import HALVES, IMAGENET, PixelRange
from minimobile.networks.config import ACTIVATIONS
from minimobile.networks.graph import INPUT, Node
from minimobile.operations.estimate import UNIT_ROUNDOFF, Estimate
from minimobile.operations.operation import Weights
from minimobile.operations.table import is_convolution, operation_of
from minimobile_kernels.elementwise import CLAMPS

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison found. `first_difference` names what differs first, `diagnosis` says what it looks like, where
    known.
    """

    first_difference: str | None
    diagnosis: str | None

    @property
    def agrees(self) -> bool:
        """Whether nothing differs that should not."""
        return self.first_difference is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: {"agrees", "first_difference", "diagnosis", ...}."""
        return {"agrees": self.agrees, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Suspect:
    """A layer that differs, by itself: the nodes from what the other side had before it, and what it `found`.

    `inputs` are the other side's own values, so that nothing from earlier layers is mixed in; `grid` is that of
    `found`, where it was kept in integers. Shapes: (N, H, W, C).
    """

    nodes: tuple[Node, ...]
    weights: Weights
    inputs: Mapping[str, Estimate]
    found: Array
    grid: Grid | None = None

    def estimate(self) -> Estimate:
        """Return what our definition makes of the inputs."""
        return estimate(self.nodes, self.weights, self.inputs)

    def with_node(self, node: Node, **attributes: Any) -> Estimate:
        """Return the estimate with other attributes of one node."""
        changed = dataclasses.replace(node, attributes={**node.attributes, **attributes})
        return estimate(tuple(changed if n is node else n for n in self.nodes), self.weights, self.inputs)

    def with_weight(self, name: str, values: Array) -> Estimate:
        """Return the estimate with other values of one weight, given by its canonical name."""
        return estimate(self.nodes, {**self.weights, name: values}, self.inputs)

    def with_pixels(self, pixels: Estimate) -> Estimate:
        """Return the estimate with other pixels."""
        return estimate(self.nodes, self.weights, {**self.inputs, INPUT: pixels})

    def nodes_of(self, op: str) -> Iterator[Node]:
        """Yield the nodes of one operation."""
        return (node for node in self.nodes if node.op == op)

    def sliding_nodes(self) -> Iterator[Node]:
        """Yield the convolutions with a kernel larger than one pixel."""
        return (
            node for node in self.nodes if node.attributes.get("kernel_size", 1) > 1 and "padding" in node.attributes
        )


class Candidate(NamedTuple):
    """What the other side may have done, what would come of it, and the values to compare with that."""

    sentence: str
    expected: Estimate
    found: Array


def diagnose(suspect: Suspect) -> str | None:
    """Return the first hypothesis under which float32 explains all that the other side found, in one sentence."""
    for propose in HYPOTHESES:
        for sentence, expected, found in propose(suspect):
            if expected.value.shape == found.shape and excess(quantise(expected, suspect.grid), found).max() <= 1:
                return sentence
    return None


def other_padding(suspect: Suspect) -> Iterator[Candidate]:
    """Zeros on other sides: PyTorch's habit, TensorFlow's SAME, Keras' V1."""
    for node in suspect.sliding_nodes():
        side = (node.attributes["kernel_size"] - 1) // 2 * node.attributes["dilation"]
        own = node.attributes["padding"]
        paddings = {
            "symmetric, as PyTorch's": ((side, side), (side, side)),
            "SAME, as TensorFlow's": "SAME",
            "below and on the right only, as Keras'": ((0, 2 * side - 1), (0, 2 * side - 1)),
        }
        for name, padding in paddings.items():
            if padding != own:
                sentence = f"padding: {name}; ours is {own}"
                yield Candidate(sentence, suspect.with_node(node, padding=padding), suspect.found)


def other_stride(suspect: Suspect) -> Iterator[Candidate]:
    """Another output stride: a layer that keeps its stride, or gets dilated, where ours does not."""
    for node in suspect.sliding_nodes():
        own = (node.attributes["stride"], node.attributes["dilation"])
        for stride, dilation in ((1, 1), (2, 1), (1, 2), (1, 4)):
            if (stride, dilation) != own:
                yield Candidate(
                    f"output stride: stride {stride} and dilation {dilation}; ours are {own[0]} and {own[1]}",
                    suspect.with_node(node, stride=stride, dilation=dilation),
                    suspect.found,
                )


def other_epsilon(suspect: Suspect) -> Iterator[Candidate]:
    """Batch norm with the epsilon of another school."""
    for node in suspect.nodes_of("batch_norm"):
        own = node.attributes["epsilon"]
        for epsilon in (1e-3, 1e-5, 1e-4, 1e-6, 1e-2, 1e-7, 1e-8, 1e-12, 0.0):
            if epsilon != own:
                sentence = f"batch norm: epsilon {epsilon:g}; ours is {own:g}"
                yield Candidate(sentence, suspect.with_node(node, epsilon=epsilon), suspect.found)


def other_activation(suspect: Suspect) -> Iterator[Candidate]:
    """ReLU for ReLU6, or any other activation."""
    for node in suspect.nodes_of("activation"):
        own = node.attributes["function"]
        for function in ACTIVATIONS:
            if function not in (own, "swish"):
                sentence = f"activation: {function}; ours is {own}"
                yield Candidate(sentence, suspect.with_node(node, function=function), suspect.found)


def other_pixels(suspect: Suspect) -> Iterator[Candidate]:
    """Channels in the other order, or pixels scaled by another rule, or both."""
    pixels = suspect.inputs.get(INPUT)
    if pixels is None or pixels.value.shape[3] != 3:
        return
    changes = [("channel order: BGR for RGB, or the reverse", turn_channels(pixels))]
    for ours, theirs in itertools.permutations(RANGES, 2):
        sentence = f"normalisation: pixels as {theirs}; ours are {ours}"
        rescaled = rescale_pixels(pixels, RANGES[ours], RANGES[theirs])
        changes += [(sentence, rescaled), (f"{sentence}; and BGR for RGB, or the reverse", turn_channels(rescaled))]
    for sentence, changed in changes:
        yield Candidate(sentence, suspect.with_pixels(changed), suspect.found)


def other_variance(suspect: Suspect) -> Iterator[Candidate]:
    """Batch norm with another variance in some channels, fitted to those values that no activation cut off."""
    nodes, found, own = suspect.nodes, suspect.found, suspect.estimate()
    position = next((index for index, node in enumerate(nodes) if operation_of(node).is_normalization), len(nodes))
    tail = [node.op for node in nodes[position:]]
    if own.value.shape != found.shape or tail not in (["batch_norm"], ["batch_norm", "activation"]):
        return
    epsilon, names = nodes[position].attributes["epsilon"], nodes[position].weights
    weight, shift, mean, variance = (
        suspect.weights[names[role]].astype(np.float64) for role in ("weight", "bias", "mean", "variance")
    )
    low, high = CLAMPS.get(nodes[-1].attributes.get("function", "linear"), (np.inf, -np.inf))
    is_whole = (found > low) & (found < high)
    x = np.where(is_whole, estimate(nodes[:position], suspect.weights, suspect.inputs).value - mean, 0)
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
            suspect.with_weight(names["variance"], changed),
            found,
        )


def other_layout(suspect: Suspect) -> Iterator[Candidate]:
    """Kernels that were transposed, turned, or read in another layout when they were converted."""
    for node in suspect.nodes:
        if is_convolution(node):
            kind = {"depthwise_conv2d": "depthwise", "pointwise_conv2d": "1x1"}.get(node.op, "convolution")
            weight = suspect.weights[node.weights["weight"]]
            weight = weight if weight.ndim == 4 else weight[:, :, None, None]  # (O, I, K_h, K_w)
            for name, change in LAYOUTS.items():
                changed = change(weight)
                if changed.shape == weight.shape and not np.array_equal(changed, weight):
                    sentence = f"weights: {kind} kernels {name}"
                    yield Candidate(sentence, suspect.with_weight(node.weights["weight"], changed), suspect.found)


def other_classes(suspect: Suspect) -> Iterator[Candidate]:
    """1000 classes for 1001 and the reverse: without, or with, a background class in front."""
    found, own = suspect.found, suspect.estimate()
    count, own_count = found.shape[3], own.value.shape[3]
    if count == own_count - 1:
        sentence = f"classes: {count} for our {own_count}; missing is"
        yield Candidate(f"{sentence} our first, the background", take_channels(own, slice(1, None)), found)
        yield Candidate(f"{sentence} our last", take_channels(own, slice(-1)), found)
    elif count == own_count + 1:
        sentence = f"classes: {count} for our {own_count}; one more"
        yield Candidate(f"{sentence} in front, as for a background", own, found[..., 1:])
        yield Candidate(f"{sentence} at the end", own, found[..., :-1])
    elif count == own_count > 2:
        sentence = f"classes: {count} as ours, but each one place"
        later, earlier = take_channels(own, slice(-1)), take_channels(own, slice(1, None))
        yield Candidate(f"{sentence} later, as if after a background", later, found[..., 1:])
        yield Candidate(f"{sentence} earlier, as if without a background", earlier, found[..., :-1])


def other_resize(suspect: Suspect) -> Iterator[Candidate]:
    """Bilinear resizing with the other rule for corners, inside the network or of its result."""
    for node in suspect.nodes_of("resize_bilinear"):
        rule = not node.attributes["align_corners"]
        sentence = f"resize: align_corners={rule}; ours is {not rule}"
        yield Candidate(sentence, suspect.with_node(node, align_corners=rule), suspect.found)
    n, height, width, _ = suspect.found.shape
    own = suspect.estimate()
    if height > own.value.shape[1] > 1 and width > own.value.shape[2] > 1:
        last = suspect.nodes[-1].name
        for rule in (True, False):
            resize = Node("resized", "resize_bilinear", (last, "like"), {"align_corners": rule})
            like = exact(np.zeros((n, height, width, 1)))
            expected = estimate((*suspect.nodes, resize), suspect.weights, {**suspect.inputs, "like": like})
            yield Candidate(f"resize: upsampled to {height}x{width} with align_corners={rule}", expected, suspect.found)


RANGES: Mapping[str, PixelRange] = {
    "[-1, 1]": HALVES,
    "[0, 1]": PixelRange(1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "[0, 255]": PixelRange(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "ImageNet's mean and deviation": IMAGENET,
}


def rescale_pixels(pixels: Estimate, ours: PixelRange, theirs: PixelRange) -> Estimate:
    """Return pixels (N, H, W, 3) under our rule as they are under theirs; ours are rounded, and so are theirs."""
    mean, std, their_mean, their_std = map(np.array, (ours.mean, ours.std, theirs.mean, theirs.std))
    factor = std * theirs.factor / (ours.factor * their_std)
    offset = (mean * theirs.factor / ours.factor - their_mean) / their_std
    value = factor * pixels.value + offset
    error = 8 * UNIT_ROUNDOFF * (np.abs(factor * pixels.value) + np.abs(offset))
    return Estimate(value, error, np.abs(value) + error)


def turn_channels(pixels: Estimate) -> Estimate:
    """Return pixels (N, H, W, 3) with their channels in the reverse order."""
    return take_channels(pixels, slice(None, None, -1))


def take_channels(estimated: Estimate, channels: slice) -> Estimate:
    """Return some channels of an estimate (N, H, W, C)."""
    value, error, magnitude = (getattr(estimated, name)[..., channels] for name in ("value", "error", "magnitude"))
    return Estimate(value, error, magnitude)


def misread_layout(weight: Array) -> Array:
    """Return (O, I, K_h, K_w) as TensorFlow stores it, (K_h, K_w, I, O), depthwise (K_h, K_w, O, 1), but reshaped."""
    axes = (2, 3, 1, 0) if weight.shape[1] > 1 else (2, 3, 0, 1)
    reshaped: Array = weight.transpose(axes).reshape(weight.shape)
    return reshaped


LAYOUTS: Mapping[str, Callable[[Array], Array]] = {
    "transposed, rows for columns": lambda weight: weight.swapaxes(2, 3),
    "turned by 180 degrees, a true convolution": lambda weight: weight[..., ::-1, ::-1],
    "flipped left to right": lambda weight: weight[..., ::-1],
    "flipped top to bottom": lambda weight: weight[..., ::-1, :],
    "with inputs for outputs": lambda weight: weight.swapaxes(0, 1),
    "in TensorFlow's layout, reshaped where they should be transposed": misread_layout,
}
HYPOTHESES: tuple[Callable[[Suspect], Iterator[Candidate]], ...] = (
    other_classes,
    other_padding,
    other_epsilon,
    other_activation,
    other_layout,
    other_pixels,
    other_resize,
    other_stride,
    other_variance,
)
