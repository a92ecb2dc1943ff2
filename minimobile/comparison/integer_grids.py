"""Values that lie on a grid, as integers of 8 bits times a scale do: its step, found from the values alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STEPS = 255  # of 8 bits, from the least to the largest value
_NEAR = 1e-3  # of a step: float32's rounding of a scale and of 255 of its multiples is a thirtieth of it
_SAMPLE = 16  # values of a row in which a step is looked for before all are asked


def find_grid(rows: Array) -> Array | None:
    """Return the largest step of each row of which all its values are multiples, no more than 255 from end to end.

    A row of zeros has the step 0. None where there is a row without such a step.
    Shapes: rows (C, n), the result (C).

    >>> find_grid(np.array([[0.5, -1.0, 1.5], [0.0, 0.0, 0.0]]))
    array([0.5, 0. ])
    """
    largest = np.abs(rows).max(axis=1)
    used = largest > 0
    with np.errstate(all="ignore"):
        shares = np.where(used[:, None], rows / largest[:, None], 0)  # (C, n), from -1 to 1
    # The largest value is `count` steps: each count is tried, from few to many, on some of the values.
    counts = np.arange(1, STEPS + 1)
    sample = shares[:, :: max(1, shares.shape[1] // _SAMPLE)][:, :_SAMPLE]
    multiples = sample[:, None, :] * counts[:, None]  # (C, 255, samples)
    is_likely = np.max(np.abs(multiples - np.rint(multiples)), axis=2) <= _NEAR  # (C, 255)
    found = np.zeros(len(rows))
    missing = used.copy()
    while missing.any():
        places = np.flatnonzero(missing)
        if not is_likely[places].any(axis=1).all():
            return None
        index = np.argmax(is_likely[places], axis=1)
        is_likely[places, index] = False
        multiples = shares[places] * counts[index][:, None]
        near = (np.abs(multiples - np.rint(multiples)) <= _NEAR).all(axis=1)
        near &= np.ptp(multiples, axis=1) <= STEPS + _NEAR
        found[places[near]] = (largest[places] / counts[index])[near]
        missing[places[near]] = False
    return found
