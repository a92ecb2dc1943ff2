"""The weights of a product in panels of output channels, as they lie among the constants."""

from __future__ import annotations

from typing import Any, NamedTuple

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div
from minimobile_kernels.quantized.constants import LONG_BYTES
from minimobile_kernels.quantized.integers import load_long
from minimobile_kernels.step import PANEL_VECTORS


class Panel(NamedTuple):
    """The weights of a panel: where its taps begin, how many groups of bytes it has, and where these begin."""

    taps: int
    groups: int
    weight: int


PANEL_BYTES = len(Panel._fields) * LONG_BYTES


@compiled
def load_panel(step: Any, constants: Any, panel: int) -> Panel:
    """Return a panel of a step by its number."""
    table = step.panels + panel * PANEL_BYTES
    taps, groups = load_long(constants, table), load_long(constants, table + LONG_BYTES)
    return Panel(taps, groups, load_long(constants, table + 2 * LONG_BYTES))


@compiled
def count_vectors(step: Any, panel: int) -> int:
    """Return how many vectors of channels a panel has: all but the last one `PANEL_VECTORS`."""
    vectors: int = ceil_div(step.out_channels, LANES) - panel * PANEL_VECTORS
    return min(PANEL_VECTORS, vectors)
