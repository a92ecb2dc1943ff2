"""How many planes of vectors hold a map's channels, and which share of a step's work is one part's."""

from __future__ import annotations

from minimobile_kernels._jit import compiled
from minimobile_kernels.step import PANEL_VECTORS


@compiled
def share(count: int, unit: int, part: int, parts: int) -> tuple[int, int]:
    """Return the items [first, last) of `count` that make up one of `parts`, cut at multiples of `unit`."""
    units = ceil_div(count, unit)
    first = units * part // parts * unit
    last = units * (part + 1) // parts * unit
    return min(first, count), min(last, count)


@compiled
def share_panels(planes: int, pieces: int, part: int, parts: int) -> tuple[int, int]:
    """Return the items [first, last) that make up one of `parts`, where panel p has the items from p * pieces on.

    A panel is `PANEL_VECTORS` planes, of which each costs as much; the last one may have fewer. So a part may begin and
    end within a panel: of nine panels, five take two threads as long as ten.
    """
    whole, rest = planes // PANEL_VECTORS * pieces, planes % PANEL_VECTORS
    first, last = share(planes * pieces, 1, part, parts)
    return _find_item(first, whole, rest), _find_item(last, whole, rest)


@compiled
def _find_item(cost: int, whole: int, rest: int) -> int:
    """Return the item before which lies that cost; `whole` items have all planes, and those after them `rest`."""
    if cost < whole * PANEL_VECTORS:
        return cost // PANEL_VECTORS
    return whole + (cost - whole * PANEL_VECTORS) // max(1, rest)


@compiled
def ceil_div(count: int, size: int) -> int:
    """Return how many groups of `size` hold `count`: planes of a map's channels, panels of planes, tiles of rows."""
    return (count + size - 1) // size
