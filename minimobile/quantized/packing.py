"""Weights of quantised convolutions in the order in which the kernels read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.constants import GROUP, SCALES, VISITS
from minimobile_kernels.quantized.reference import Scaling
from minimobile_kernels.step import PANEL_VECTORS


class Panel(NamedTuple):
    """The weights of neighbouring output channels: [groups][channels][GROUP], and which group of x each belongs to."""

    groups: NDArray[np.int64]
    weights: NDArray[np.int8]


def pack_panels(weights: NDArray[np.int64]) -> list[Panel]:
    """Return the panels of a matrix of weights minus their zero point, (C_out, terms) in -255..255.

    `terms` is a multiple of GROUP. What does not fit a signed byte is left for another visit to its group: sums of
    integers do not mind.
    """
    panels = []
    size = PANEL_VECTORS * LANES
    for start in range(0, len(weights), size):
        part = weights[start : start + size]
        padded = np.zeros((-(-len(part) // LANES) * LANES, weights.shape[1] // GROUP, GROUP), np.int64)
        padded[: len(part)] = part.reshape(len(part), -1, GROUP)
        groups, visits = [], []
        for visit, values in enumerate(_visits(padded)):
            needed = np.flatnonzero(values.any(axis=(0, 2))) if visit else np.arange(padded.shape[1])
            groups.append(needed)
            visits.append(values[:, needed])
        in_order = np.concatenate(visits, axis=1).transpose(1, 0, 2)
        panels.append(Panel(np.concatenate(groups), np.ascontiguousarray(in_order)))
    return panels


def pack_filters(weights: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return 3x3 depthwise weights minus their zero point as [planes][VISITS][column][LANES][GROUP], and visits.

    `weights` is (3, 3, C). The second array is the number of visits that each plane needs.
    """
    channels = weights.shape[2]
    planes = -(-channels // LANES)
    padded = np.zeros((3, GROUP, planes * LANES), np.int64)
    padded[:, :3, :channels] = weights.transpose(1, 0, 2)  # (column, row, C)
    columns = padded.reshape(3, GROUP, planes, LANES).transpose(2, 0, 3, 1)  # (planes, column, LANES, row)
    packed = np.zeros((planes, VISITS, 3, LANES, GROUP), np.int8)
    counts = np.ones(planes, np.int64)
    for visit, values in enumerate(_visits(columns)):
        packed[:, visit] = values
        counts[values.any(axis=(1, 2, 3))] = visit + 1
    return packed, counts


def _visits(weights: NDArray[np.int64]) -> Iterator[NDArray[np.int8]]:
    """Yield arrays of signed bytes whose sum is `weights`; the first also where all is zero."""
    is_first = True
    while is_first or weights.any():
        visit = np.clip(weights, -128, 127)
        yield visit.astype(np.int8)
        weights = weights - visit
        is_first = False


def pack_plain_filters(weights: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return depthwise weights of any size, (K_h, K_w, C) minus their zero point, as [planes][K_h * K_w][LANES]."""
    taps, channels = weights.shape[0] * weights.shape[1], weights.shape[2]
    planes = -(-channels // LANES)
    padded = np.zeros((taps, planes * LANES), np.int32)
    padded[:, :channels] = weights.reshape(taps, channels)
    return np.ascontiguousarray(padded.reshape(taps, planes, LANES).transpose(1, 0, 2))


def pack_scales(
    channels: int, by: Scaling, bias: NDArray[np.int64], estimated: NDArray[np.float32] | None = None
) -> NDArray[np.int32]:
    """Return the table that the kernels read: [planes][SCALES][LANES]. `estimated` are the rows of `estimates`."""
    planes = -(-channels // LANES)
    table = np.zeros((len(SCALES), planes * LANES), np.int64)
    rows = [bias, by.multiplier, np.maximum(by.shift, 0), np.maximum(-by.shift, 0), by.scale.view(np.int32)]
    if estimated is not None:
        rows += list(estimated.view(np.int32))
        table[SCALES.index("above") :] = estimated[1:, :1].view(np.int32)  # channels that are not there are certain
    for index, values in enumerate(rows):
        table[index, :channels] = values
    wrapped = table.astype(np.uint64).astype(np.uint32).view(np.int32)  # as sums of int32 wrap
    return np.ascontiguousarray(wrapped.reshape(len(SCALES), planes, LANES).transpose(1, 0, 2))
