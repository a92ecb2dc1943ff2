"""How many rows convolutions that are done together have in work at once: a block of the papers, in bands."""

from __future__ import annotations

from typing import NamedTuple

from minimobile_kernels.geometry import Window
from minimobile_kernels.host import LANES
from minimobile_kernels.step import PANEL_VECTORS

MOST_WEIGHT_BYTES = 1 << 19  # of a block with an expansion: every band goes through them again
LEAST_ROWS = 4  # where a thread's share is not less
BAND_BYTES = 10 << 16  # of a thread's own memory for a block: with what else a band reads, in the second-level cache
BAND_COST, ODD_COST = 0.25, 0.125  # of a band by itself and of an odd one, for filters do two rows at once: in rows
MOST_ROWS = 1.1  # of its share, that the thread with the most of them does


class Block(NamedTuple):
    """A depthwise convolution, the pointwise one after it and, if it is expanded, the convolution before it."""

    planes: int  # of vectors of filtered channels
    window: Window  # that slides over the map of each image
    weights: int  # of the convolutions before the filter and behind it
    batch: int
    is_expanded: bool = True


class Band(NamedTuple):
    """How many filtered rows a band has, and the floats of a thread's own memory, before the filter and behind it."""

    rows: int
    expanded: int
    filtered: int


def choose_band(block: Block, num_threads: int) -> Band | None:
    """Return the bands for a block, None where its maps are better made one after another."""
    height = block.window.out_height
    heights = range(min(LEAST_ROWS, -(-height // num_threads)), height + 1)
    bands = (_band(block, rows) for rows in heights)
    fitting = (band for band in bands if 4 * (band.expanded + band.filtered) <= BAND_BYTES)
    suitable = (band for band in fitting if _is_suitable(block, band.rows, num_threads))
    return min(suitable, key=lambda band: _cost(block, band.rows, num_threads), default=None)


def count_bands(batch: int, height: int, rows: int) -> int:
    """Return how many bands all images have."""
    return batch * -(-height // rows)


def _is_suitable(block: Block, rows: int, num_threads: int) -> bool:
    """Tell whether bands are fair, and cost less than what they save.

    A block whose bands are not fair is shared better by channels, one convolution after another, and one whose weights
    are gone through again and again may read more of them than it has values between its convolutions. With an
    expansion, so much lies between them that its bands need not be fair.
    """
    if block.is_expanded:
        return 4 * block.weights <= MOST_WEIGHT_BYTES
    window = block.window
    bands, most_rows = _share(block, rows, num_threads)
    is_fair = most_rows * num_threads <= MOST_ROWS * block.batch * window.out_height
    return is_fair and (bands == 1 or bands * block.weights <= block.planes * most_rows * window.out_width * LANES)


def _band(block: Block, rows: int) -> Band:
    window, filtered = block.window, block.planes * rows * block.window.out_width * LANES
    if not block.is_expanded:
        return Band(rows, 0, filtered)
    reach = (window.kernel_height - 1) * window.dilation + 1
    expanded = min(window.height, (rows - 1) * window.stride + reach) * window.width * LANES
    again = max(0, reach - window.stride) * window.width * LANES if rows < window.out_height else 0
    return Band(rows, PANEL_VECTORS * expanded, filtered + block.planes * again)


def _share(block: Block, rows: int, num_threads: int) -> tuple[int, int]:
    """Return the bands, and at most as many rows, of the thread with the most bands."""
    bands = -(-count_bands(block.batch, block.window.out_height, rows) // num_threads)
    return bands, min(bands * rows, block.batch * block.window.out_height)


def _cost(block: Block, rows: int, num_threads: int) -> float:
    """Return the rows that the thread with the most bands does, with what a band costs besides."""
    bands, most_rows = _share(block, rows, num_threads)
    return most_rows + bands * (BAND_COST + rows % 2 * ODD_COST)
