"""The class of every pixel: logits resized and the largest chosen, without ever holding the resized logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.class_map_sizes import COLUMNS


def find_classes(
    x: Any, vertical: Any, down: Any, horizontal: Any, across: Any, rows: Any, best: Any, out: Any
) -> None:  # fmt: skip
    """Find the channel whose resized value is the largest: the first of equal ones, and NaN before all.

    Every value is interpolated along the row, then along the column, in float64, and rounded to float32 before it is
    compared. Defined by reference.resize_bilinear and np.argmax.

    Shapes: x (C, h, w) with C below 65536, not a single pixel; vertical (2, H) and down (H): the rows that each row of
    the result lies between and the weight of the second; horizontal (2, W) and across (W): so for columns
    (reference.interpolation_points); rows and best: as `class_map_sizes.work_sizes` says; out (H, W).
    """
    width = out.shape[1]
    for start in range(0, width, COLUMNS):
        stop = min(start + COLUMNS, width)
        held = (-1, -1)  # which rows of x `rows` holds, interpolated along the row
        for i in range(out.shape[0]):
            for row in (vertical[0, i], vertical[1, i]):
                if row not in held:
                    other = vertical[1, i] if row == vertical[0, i] else vertical[0, i]
                    place = 1 if held[0] == other else 0
                    _interpolate_row(x, row, horizontal, across, start, stop, rows[place])
                    held = (row, held[1]) if place == 0 else (held[0], row)
            above = rows[0] if held[0] == vertical[0, i] else rows[1]
            below = rows[0] if held[0] == vertical[1, i] else rows[1]
            _choose(above, below, down[i], best, out[i, start:stop])


@compiled
def _interpolate_row(x: Any, row: int, horizontal: Any, across: Any, start: int, stop: int, out: Any) -> None:
    left, right, weights = horizontal[0, start:stop], horizontal[1, start:stop], across[start:stop]
    for c in range(x.shape[0]):
        values, blended = x[c, row], out[c]
        for j in range(stop - start):
            blended[j] = values[left[j]] * (1 - weights[j]) + values[right[j]] * weights[j]


@compiled
def _choose(above: Any, below: Any, down: float, best: Any, out: Any) -> None:
    for j in range(out.shape[0]):
        best[j] = above[0, j] * (1 - down) + below[0, j] * down
        out[j] = 0
    for c in range(1, above.shape[0]):
        for j in range(out.shape[0]):
            value = np.float32(above[c, j] * (1 - down) + below[c, j] * down)
            is_larger = (value > best[j]) | (np.isnan(value) & ~np.isnan(best[j]))
            best[j] = value if is_larger else best[j]
            out[j] = c if is_larger else out[j]
