"""The mailbox of a crew: where, in one array of int64, a call is announced and helpers say what they are at.

The caller writes FUNCTION and TABLE, then machine code makes CALL odd for as long as the call goes on (`crew.py`). A
helper that finds it odd reads the two, says in its HAZARD which call it is at, and only then looks whether CALL is
still the same: if it is, what it read belongs to that call, and the caller, who looks at every HAZARD once the call is
over, knows that its memory is in use. So nobody ever waits for a helper to come or to leave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels.step import LINE

CALL = 0  # counts up when a call begins, and again when it is over: no number comes twice
FUNCTION = 1  # where the call's machine code lies
TABLE = 2  # and the table of its arguments
IS_OVER = LINE  # not zero: helpers shall leave
IS_VISITED = LINE + 1  # not zero: when the last call was over, helpers were at it, or at one before
HAZARD = 2 * LINE  # of the first helper; the next one's lies a line further: which call it is at, 0: none
SERVED = HAZARD + 1  # the last call that it was at


def make_mailbox(helpers: int) -> NDArray[np.int64]:
    """Return the mailbox of so many helpers, each of which has a cache line of its own."""
    memory = np.zeros((3 + helpers) * LINE, np.int64)
    start = -memory.ctypes.data // memory.itemsize % LINE
    return memory[start : start + (2 + helpers) * LINE]
