"""How many planes of vectors hold a map's channels, and which share of a step's work is one part's."""

from __future__ import annotations

from minimobile_kernels._jit import inlined


@inlined
def share(count: int, unit: int, part: int, parts: int) -> tuple[int, int]:
    """Return the items [first, last) of `count` that make up one of `parts`, cut at multiples of `unit`."""
    units = (count + unit - 1) // unit
    first = units * part // parts * unit
    last = units * (part + 1) // parts * unit
    return min(first, count), min(last, count)


@inlined
def plane_count(channels: int, lanes: int) -> int:
    """Return how many planes of `lanes` channels hold `channels`."""
    return (channels + lanes - 1) // lanes
