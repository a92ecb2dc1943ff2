"""The sizes and tables of what lies among the constants of a quantised program, and beside its maps in the arena.

Whoever builds a program and the kernels agree on them here, in plain numbers: nothing is compiled for that.
"""

from __future__ import annotations

from typing import NamedTuple

from minimobile_kernels.amx import HAS_TILES, ROW_BYTES, ROWS
from minimobile_kernels.host import LANES

GROUP = 4  # neighbouring channels whose products are added at once
FRACTION_BITS = 16  # of a number that becomes a byte: its upper half holds the whole part
WORD_BYTES, LONG_BYTES = 4, 8
VECTOR_BYTES = WORD_BYTES * LANES  # of int32


class TilePlaces(NamedTuple):
    """What a thread with matrix registers has in the arena: where each begins, and the bytes of all together."""

    doubtful: int  # behind the registers' sizes: sums of a tile that are not certain
    sums: int  # of the tiles of a block
    pixels: int  # gathered for the registers
    end: int


GATHERED_BYTES = 1 << 17  # of pixels: with a panel's weights they stay in the second-level cache
_TILE = ROWS * VECTOR_BYTES  # bytes of sums
TILE_PLACES = TilePlaces(ROW_BYTES, ROW_BYTES + _TILE, ROW_BYTES + 5 * _TILE, ROW_BYTES + 5 * _TILE + GATHERED_BYTES)
# Of one thread: room for the sums of the largest tile, and more.
SUM_BYTES = TILE_PLACES.end if HAS_TILES else 64 * VECTOR_BYTES

# The rows of a table of int32, [LANES] each, for every channel of a plane; those from "scale" on hold bits of float32.
SCALES = ("bias", "multiplier", "left", "right", "scale", "factor", "above", "below")
SCALES_BYTES = len(SCALES) * VECTOR_BYTES

VISITS = 3  # at most, for weights of nine bits and a sign in signed bytes
LINE_PIXELS = 17  # of a line outside the image: as wide as eight outputs of stride 2 reach
MOST_CHANNELS = 1 << 12  # of a softmax
PLACE_BITS = 23  # of a key of argmax, which holds a byte and the place of its channel
