"""One value written out: its terms, the stages after them, and the arithmetic of both, one value at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels import reference
from minimobile_kernels.geometry import Window

Array = NDArray[Any]
Scalar = np.floating[Any]
Position = tuple[int, int, int]  # row, column, channel


class Term(NamedTuple):
    """One term. `tap` is (ky, kx), `position` that of the pixel it reads.

    `pixel` is None where that lies outside the map: such a term is skipped. `weight` and `product` (exact for float32:
    in float64) are None in a mean. `running` is the sum so far, of this block of terms.
    """

    tap: tuple[int, int]
    position: Position
    pixel: Scalar | None
    weight: Scalar | None
    product: Scalar | None
    running: Scalar


class Stage(NamedTuple):
    """One step after the terms: what is done, with which number (None: with none), and the value after it."""

    name: str
    operand: Scalar | None
    value: Scalar


class WrittenOut(NamedTuple):
    """The map that is read, the terms, how many of them make one chain of the sum, and the stages after them."""

    source: str
    terms: tuple[Term, ...]
    block: int
    stages: tuple[Stage, ...]


def write_copy(source: str, x: Array, where: Position) -> WrittenOut:
    """Write out a value that is copied. Shape: x (H, W, C)."""
    term = Term((0, 0), where, x[where], None, None, x[where])
    return WrittenOut(source, (term,), 1, (Stage("copied", None, x[where]),))


def list_reads(slide: Window, at: Position, channels: Sequence[int]) -> list[tuple[tuple[int, int], Position]]:
    """Return (tap, position read) of every term of a window, in the order ky, kx, ci; some lie outside the map."""
    return [
        ((ky, kx), (y, x, ci))
        for ky in range(slide.kernel_height)
        for y in [at[0] * slide.stride - slide.pad_top + ky * slide.dilation]
        for kx in range(slide.kernel_width)
        for x in [at[1] * slide.stride - slide.pad_left + kx * slide.dilation]
        for ci in channels
    ]


def sum_in_blocks(x: Array, w: Array, is_inside: NDArray[np.bool_], size: int) -> tuple[Array, list[Stage]]:
    """Return the sum of each term's block so far, and one stage per block: its sum, and the total with it.

    Every block of `size` terms is a chain of its own, from zero. Shapes: x, w, is_inside (terms).
    """
    running = np.zeros_like(x)
    stages: list[Stage] = []
    for first in range(0, len(x), size):
        block = np.zeros(1, x.dtype)
        for index in range(first, min(first + size, len(x))):
            if is_inside[index]:
                block = reference.fma(x[index : index + 1], w[index : index + 1], block)
            running[index] = block[0]
        total = reference.add(as_array(stages[-1].value), block) if stages else block
        stages.append(Stage(f"block {len(stages)}", block[0], total[0]))
    return running, stages


def as_array(value: Scalar) -> Array:
    """Return one value as an array, which the definitions take."""
    return np.array([value])
