"""On which processor a thread is woken, where the system lets itself be told (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable


@functools.cache
def _find_current() -> Callable[[], int] | None:
    """Return the system's function that says on which processor this thread runs, None where there is none."""
    if not hasattr(os, "sched_setaffinity") or sys.platform == "win32":
        return None
    found: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return found


def keep_off(thread: int) -> set[int] | None:
    """Keep a thread that sleeps off this thread's processor; returns where it may run otherwise, None: as it was.

    Linux wakes a thread on the processor of the one that wakes it unless it sees an idle one, and on a virtual machine
    it does not see those, for the host has put them to sleep: two threads that were to share work then take turns on
    one processor, until the system looks around a few milliseconds later. `thread` is a native identifier.
    """
    current = _find_current()
    if current is None:
        return None
    with contextlib.suppress(OSError):  # where that is not allowed, the thread wakes where the system likes
        allowed = os.sched_getaffinity(thread)
        others = allowed - {current()}
        if others and others != allowed:
            os.sched_setaffinity(thread, others)
            return allowed
    return None


def allow(processors: set[int]) -> None:
    """Let this thread run on any of these processors."""
    with contextlib.suppress(OSError):  # one of them has been taken away from this process
        os.sched_setaffinity(0, processors)
