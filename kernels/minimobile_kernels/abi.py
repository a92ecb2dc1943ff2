"""What Python and machine code agree on: an entry's parameters, its name and answers, and how code is loaded."""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np

CALL = "minimobile_call"
"""What machine code has under this name takes a table of int64 and a thread's number; it returns 0 if all went well.

The table holds an address of an object for every array, and the numbers; after them what type each array has to have.
"""
UNFIT = 1000
"""What it returns where an array is not what the entry takes."""


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


def target_machine() -> Any:
    """Return LLVM's description of code that is loaded anywhere in memory, as Numba has it."""
    target = llvm.Target.from_default_triple()
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(reloc=relocation, codemodel="jitdefault", jit=True)
