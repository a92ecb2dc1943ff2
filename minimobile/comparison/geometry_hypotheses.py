"""Known faults of where pixels come from: padding, strides, resizing, channels and their scale, classes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from minimobile.comparison.float32_bounds import estimate, exact
from minimobile.comparison.suspect import Candidate, Suspect, take_channels
from minimobile.formats.dialects import HALVES, IMAGENET, PixelRange
from minimobile.networks.graph import INPUT, Node
from minimobile.operations.estimate import ONE_ROUNDING, UNIT_ROUNDOFF, Estimate

Padding: TypeAlias = str | tuple[tuple[int, int], tuple[int, int]]


def other_padding(suspect: Suspect) -> Iterator[Candidate]:
    """Zeros on other sides: PyTorch's habit, TensorFlow's SAME, Keras' V1."""
    first = next(suspect.sliding_nodes(), None)
    if first is None:
        return
    own = first.attributes["padding"]
    for name, rule in PADDINGS.items():
        if any(rule(node) != node.attributes["padding"] for node in suspect.sliding_nodes()):
            paddings = {node.name: rule(node) for node in suspect.sliding_nodes()}

            def change(node: Node, paddings: Mapping[str, Padding] = paddings) -> Node:
                if node.name not in paddings:
                    return node
                return dataclasses.replace(node, attributes={**node.attributes, "padding": paddings[node.name]})

            yield Candidate(f"padding: {name}; ours is {own}", suspect.with_nodes(change), suspect.found)


def other_stride(suspect: Suspect) -> Iterator[Candidate]:
    """Another output stride: a layer that keeps its stride, or gets dilated, where ours does not."""
    for node in () if suspect.is_path else suspect.sliding_nodes():
        own = (node.attributes["stride"], node.attributes["dilation"])
        for stride, dilation in ((1, 1), (2, 1), (1, 2), (1, 4)):
            if (stride, dilation) != own:
                yield Candidate(
                    f"output stride: stride {stride} and dilation {dilation}; ours are {own[0]} and {own[1]}",
                    suspect.with_attributes(iter([node]), stride=stride, dilation=dilation),
                    suspect.found,
                )


def other_pixels(suspect: Suspect) -> Iterator[Candidate]:
    """Channels in the other order, or pixels scaled by another rule, or both."""
    pixels = suspect.inputs.get(INPUT)
    if pixels is None or pixels.value.shape[3] != 3:
        return
    yield Candidate(
        "channel order: BGR for RGB, or the reverse", suspect.with_pixels(turn_channels(pixels)), suspect.found
    )
    for ours, theirs in itertools.permutations(RANGES, 2):
        if not _may_be(pixels, RANGES[ours]):
            continue
        sentence = f"normalisation: pixels as {theirs}; ours are {ours}"
        rescaled = rescale_pixels(pixels, RANGES[ours], RANGES[theirs])
        yield Candidate(sentence, suspect.with_pixels(rescaled), suspect.found)
        turned = suspect.with_pixels(turn_channels(rescaled))
        yield Candidate(f"{sentence}; and BGR for RGB, or the reverse", turned, suspect.found)


def _may_be(pixels: Estimate, rule: PixelRange) -> bool:
    """Whether pixels (N, H, W, 3) under a rule come from bytes."""
    colours = (pixels.value * rule.std + rule.mean) / rule.factor
    return bool(np.nanmin(colours, initial=0) > -1 and np.nanmax(colours, initial=0) < 256)


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
    for node in suspect.nodes_with("align_corners"):
        rule = not node.attributes["align_corners"]
        sentence = f"resize: align_corners={rule}; ours is {not rule}"
        yield Candidate(sentence, suspect.with_attributes(iter([node]), align_corners=rule), suspect.found)
    n, height, width, _ = suspect.found.shape
    own = suspect.estimate()
    if not suspect.is_path and height > own.value.shape[1] > 1 and width > own.value.shape[2] > 1:
        last = suspect.nodes[-1].name
        for rule in (True, False):
            resize = Node("resized", "resize_bilinear", (last, "like"), {"align_corners": rule})
            like = exact(np.zeros((n, height, width, 1)))
            expected = estimate((*suspect.nodes, resize), suspect.weights, {**suspect.inputs, "like": like})
            yield Candidate(f"resize: upsampled to {height}x{width} with align_corners={rule}", expected, suspect.found)


def rescale_pixels(pixels: Estimate, ours: PixelRange, theirs: PixelRange) -> Estimate:
    """Return pixels (N, H, W, 3) under our rule as they are under theirs; ours are rounded, and so are theirs."""
    mean, std, their_mean, their_std = map(np.array, (ours.mean, ours.std, theirs.mean, theirs.std))
    factor = std * theirs.factor / (ours.factor * their_std)
    offset = (mean * theirs.factor / ours.factor - their_mean) / their_std
    value = factor * pixels.value + offset
    error = 8 * UNIT_ROUNDOFF * (np.abs(factor * pixels.value) + np.abs(offset))
    return Estimate(value, error, np.abs(value) + error, error / (8 * UNIT_ROUNDOFF) * 2 * ONE_ROUNDING)


def turn_channels(pixels: Estimate) -> Estimate:
    """Return pixels (N, H, W, 3) with their channels in the reverse order."""
    return take_channels(pixels, slice(None, None, -1))


def _same(node: Node) -> Padding:
    return "SAME"


def _symmetric(node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    side = (node.attributes["kernel_size"] - 1) // 2 * node.attributes["dilation"]
    return (side, side), (side, side)


def _below_and_right(node: Node) -> Padding:
    if node.attributes["stride"] == 1:
        return _symmetric(node)
    (_, after), _ = _symmetric(node)
    return (0, 2 * after - 1), (0, 2 * after - 1)


PADDINGS: Mapping[str, Callable[[Node], Padding]] = {
    "symmetric, as PyTorch's": _symmetric,
    "SAME, as TensorFlow's": _same,
    "below and on the right only, as Keras'": _below_and_right,
}
RANGES: Mapping[str, PixelRange] = {
    "[-1, 1]": HALVES,
    "[0, 1]": PixelRange(1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "[0, 255]": PixelRange(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "ImageNet's mean and deviation": IMAGENET,
}
