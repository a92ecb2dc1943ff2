"""How many rows three convolutions that are done together have in work at once: an inverted residual, in bands."""

from __future__ import annotations

from typing import NamedTuple

from minimobile_kernels.geometry import Window
from minimobile_kernels.host import LANES
from minimobile_kernels.step import PANEL_VECTORS

MOST_WEIGHT_BYTES = 1 << 19  # which every band goes through again
LEAST_ROWS = 4
BAND_BYTES = 10 << 16  # of a thread's own memory for a block: with what else a band reads, in the second-level cache
BAND_COST, ODD_COST = 0.25, 0.125  # of a band by itself and of an odd one, for filters do two rows at once: in rows


class Block(NamedTuple):
    """Three convolutions: the window that slides over the expanded map of each image, and what surrounds it."""

    planes: int  # of vectors of expanded channels
    window: Window
    weights: int  # of the convolutions before the filter and behind it
    batch: int


class Band(NamedTuple):
    """How many filtered rows a band has, and the floats of a thread's own memory, before the filter and behind it."""

    rows: int
    expanded: int
    filtered: int


def choose_band(block: Block, num_threads: int) -> Band | None:
    """Return the bands for a block, None where its maps are better made one after another."""
    if 4 * block.weights > MOST_WEIGHT_BYTES:
        return None
    heights = range(min(LEAST_ROWS, block.window.out_height), block.window.out_height + 1)
    bands = (_band(block, rows) for rows in heights)
    fitting = (band for band in bands if 4 * (band.expanded + band.filtered) <= BAND_BYTES)
    return min(fitting, key=lambda band: _cost(block, band.rows, num_threads), default=None)


def count_bands(batch: int, height: int, rows: int) -> int:
    """Return how many bands all images have."""
    return batch * -(-height // rows)


def _band(block: Block, rows: int) -> Band:
    window = block.window
    reach = (window.kernel_height - 1) * window.dilation + 1
    expanded = min(window.height, (rows - 1) * window.stride + reach) * window.width * LANES
    again = max(0, reach - window.stride) * window.width * LANES if rows < window.out_height else 0
    return Band(rows, PANEL_VECTORS * expanded, block.planes * (rows * window.out_width * LANES + again))


def _cost(block: Block, rows: int, num_threads: int) -> float:
    """Return the rows that the thread with the most bands does, with what a band costs besides."""
    bands = -(-count_bands(block.batch, block.window.out_height, rows) // num_threads)
    return min(bands * rows, block.batch * block.window.out_height) + bands * (BAND_COST + rows % 2 * ODD_COST)
