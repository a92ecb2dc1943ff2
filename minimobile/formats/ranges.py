"""The ranges of a network trained for quantisation: complete, with 0 in them, and made into integers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.build_graph import build_graph
from minimobile.networks.graph import Graph
from minimobile.operations.fake_quantization import FakeQuantization, Ranges, needed_ranges

_LISTED = 3  # names in a message
NUM_BITS = range(2, 17)  # what TensorFlow's FakeQuantWithMinMaxVars takes


def name_range(key: str) -> str:
    """Return what `Checkpoint.mapped` calls a range by its key."""
    return f"range of {key}"


def add_ranges(
    checkpoint: Checkpoint, ranges: Ranges, where: str, called: Mapping[str, str] | None = None
) -> Checkpoint:
    """Return the checkpoint with the ranges of its training; `called` gives, by their keys, what the source calls them.

    Raises FormatError where the network has a weight or a value without a range, and for ranges without 0.
    """
    if not ranges:
        return checkpoint
    check_ranges(ranges, build_graph(checkpoint.config, checkpoint.architecture), where, called)
    return dataclasses.replace(checkpoint, ranges=ranges)


def check_ranges(ranges: Ranges, graph: Graph, where: str, called: Mapping[str, str] | None = None) -> None:
    """Raise FormatError unless there is a sound range for all that training for quantisation rounds in the graph."""

    def call(key: str) -> str:
        return (called or {}).get(key, key)

    for key, (minimum, maximum, num_bits, _) in ranges.items():
        is_sound = -math.inf < minimum <= 0 <= maximum < math.inf and num_bits in NUM_BITS
        if not is_sound:
            raise FormatError(
                f"{where}: {call(key)}: expected a range of finite numbers around 0 in 2 to 16 bits, found {minimum:g} "
                f"to {maximum:g} in {num_bits}"
            )
    missing = [call(key) for key in needed_ranges(graph) if key not in ranges]
    if missing:
        listed = ", ".join(missing[:_LISTED]) + (", ..." if len(missing) > _LISTED else "")
        raise FormatError(
            f"{where}: expected a trained range for everything that is quantised, found none for {len(missing)} of "
            f"{len(needed_ranges(graph))} ({listed}); take a checkpoint saved after training with fake quantisation"
        )


def quantize(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint that runs in integers, made of one trained for quantisation; one that does so already stays.

    Pictures come to it as bytes: its input has the range of the settings' pixel values. Raises FormatError for a
    checkpoint without ranges, and for what has no form in bytes.
    """
    if checkpoint.is_quantized:
        return checkpoint
    from minimobile.formats.dialects import settle_bytes  # with much that no network of floats needs
    from minimobile.quantized.conversion import quantize_graph

    where = checkpoint.provenance.get("source", checkpoint.architecture)
    if not checkpoint.ranges:
        raise FormatError(
            f"{where}: expected a network trained for quantisation or a quantised file, which alone can run in "
            "integers, found one of floats"
        )
    graph = build_graph(checkpoint.config, checkpoint.architecture)
    side = checkpoint.config.image_size
    size = (side, side) if isinstance(side, int) else (side[0], side[-1])
    pixels = _read_pixel_range(checkpoint.processor, checkpoint.config.num_channels, where)
    network = quantize_graph(graph, checkpoint.weights, checkpoint.ranges, size, pixels, where)
    source = network.tensors[network.inputs[0]]
    return dataclasses.replace(
        checkpoint,
        processor=settle_bytes(checkpoint.processor or {}, float(source.scale), source.zero, source.shape[-1]),
        endpoints={node.name: node.name for node in graph.nodes if node.name in network.tensors},
        quantized=network,
        ranges={},
    )


def _read_pixel_range(settings: Mapping[str, Any] | None, channels: int, where: str) -> FakeQuantization:
    """Return the pixel values that an image processor makes of bytes, from the least to the greatest."""
    if settings is None:
        raise FormatError(
            f"{where}: expected image-processor settings, which say what pixel values there are, found none"
        )
    from minimobile.formats.dialects import read_normalization

    factor, means, deviations = read_normalization(settings, channels)
    values = {
        tuple(round((byte * factor - mean) / deviation, 6) for byte in (0, 255))
        for mean, deviation in zip(means, deviations, strict=True)
    }
    if len(values) != 1:
        raise FormatError(
            f"{where}: expected image-processor settings with one range of pixel values for all channels, found "
            f"{len(values)}"
        )
    ((low, high),) = values
    if not -math.inf < low <= 0 < high < math.inf:
        raise FormatError(f"{where}: expected pixel values around 0, found {low:g} to {high:g}")
    return FakeQuantization(low, high)
