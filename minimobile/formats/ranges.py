"""The ranges of a network trained for quantisation: complete, and with 0 in them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from minimobile.errors import FormatError
from minimobile.fake_quantization import Ranges, needed_ranges
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.deduction import build_graph
from minimobile.graph import Graph

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
