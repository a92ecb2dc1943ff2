"""Greedy suppression of overlapping boxes, in compiled code. Defined by `reference_detection.suppress`, the same rows.

Candidates lie in a heap, from which the best comes next: of thousands, a few hundred are ever looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimobile_kernels._jit import compiled
from minimobile_kernels.detection_rules import SCORE

YMIN, XMIN, YMAX, XMAX, AREA, KEY, BEST = range(7)
"""The columns of `work`: a box, its area, the score by which it is suppressed, and the best of all of its scores."""


@compiled
def suppress(work: Any, order: Any, filled: int, rule: Any, limit: int, out: Any, full: int) -> int:
    """Write the rows kept, best first, to the second part of `order`, and return how many there are.

    `full` is the length of a full list in `out`, or 0: a row enters it behind those kept before it if it is better than
    what is so many from its end. The first that is not, ends the search.
    """
    anchors, kept = work.shape[0], 0
    for hole in range(filled // 2 - 1, -1, -1):
        sink(work, order, hole, filled)
    while filled > 0 and kept < limit:
        row = order[0]
        if full > 0 and work[row, KEY] <= out[full - 1 - kept, SCORE]:
            break
        filled -= 1
        order[0] = order[filled]
        sink(work, order, 0, filled)
        is_free = True
        for index in range(kept):
            if _overlaps(work, order[anchors + index], row, rule.iou_threshold):
                is_free = False
                break
        if is_free:
            order[anchors + kept] = row
            kept += 1
    return kept


@compiled
def sink(work: Any, order: Any, hole: int, filled: int) -> None:
    """Restore the heap below a place: the best score on top, the lower row of equal ones."""
    row = order[hole]
    while 2 * hole + 1 < filled:
        child = 2 * hole + 1
        if child + 1 < filled and _is_before(work, order[child + 1], order[child]):
            child += 1
        if not _is_before(work, order[child], row):
            break
        order[hole] = order[child]
        hole = child
    order[hole] = row


@compiled
def _is_before(work: Any, first: int, second: int) -> Any:
    left, right = work[first, KEY], work[second, KEY]
    return left > right or (left == right and first < second)


@compiled
def _overlaps(work: Any, first: int, second: int, threshold: float) -> Any:
    """Tell whether intersection over union is above a threshold. Defined by reference_detection.overlap.

    Most boxes share nothing: a comparison in place of a division. What has no area shares nothing, either: also
    rounded, the part of a box is no larger than the box.
    """
    height = _span(work[first, YMIN], work[first, YMAX], work[second, YMIN], work[second, YMAX])
    width = _span(work[first, XMIN], work[first, XMAX], work[second, XMIN], work[second, XMAX])
    shared = height * width
    if shared == 0:
        return False  # of a threshold that is zero or more
    return shared / (work[first, AREA] + work[second, AREA] - shared) > threshold


@compiled
def _span(low: float, high: float, other_low: float, other_high: float) -> Any:
    """Return what two intervals share, at least 0; what is not a number stays so."""
    top = other_high if other_high < high else high
    bottom = other_low if other_low > low else low
    length = top - bottom
    return np.float32(0) if length < 0 else length
