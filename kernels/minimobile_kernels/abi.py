"""What Python and machine code agree on: an entry's parameters, its name and answers, and what it may call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CALL = "minimobile_call"
"""What machine code has under this name takes a table of int64 and a thread's number; it returns 0 if all went well.

The table holds an address of an object for every array, and the numbers; after them what type each array has to have.
"""
UNFIT = 1000
"""What it returns where an array is not what the entry takes."""
SYSTEM_CALLS = frozenset({"sched_yield", "SwitchToThread", "memcpy", "memset", "memmove", "ldexp"})
"""What it may call of the system: where it is loaded, Numba's own functions are not there."""


class Array(NamedTuple):
    """An array among the arguments of an entry: contiguous, in C's order."""

    dtype: np.dtype[Any]
    dimensions: int = 1
    is_written: bool = False


class Number(NamedTuple):
    """A number among the arguments of an entry: an int64 or a float64."""

    dtype: np.dtype[Any] = np.dtype(np.int64)


Parameter = Array | Number
THREAD = Number(np.dtype(np.int64))
"""The last argument of an entry that several threads call with the same others: which of them it is."""
