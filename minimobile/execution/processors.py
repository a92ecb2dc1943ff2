"""On which processors a thread may run, where the system lets itself be told (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

LOAD = Path("/proc/loadavg")  # three means of the load, and threads that run / threads


@functools.cache
def _find_current() -> Callable[[], int] | None:
    """Return the system's function that says on which processor this thread runs, None where there is none."""
    if not hasattr(os, "sched_setaffinity") or sys.platform == "win32":
        return None
    found: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return found


def find_current() -> int | None:
    """Return the number of the processor that this thread runs on, None where the system does not say."""
    current = _find_current()
    return None if current is None else current()


def are_all_taken() -> bool:
    """Tell whether as many threads run as there are processors, this one among them; False where nobody says."""
    try:
        running = LOAD.read_text("ascii").split()[3].partition("/")[0]
    except OSError:
        return False
    return int(running) >= (os.cpu_count() or 1)


def keep_off(thread: int, processor: int) -> None:
    """Let a thread run wherever this one may, but on one processor: where this one is, if there is any other.

    Linux wakes a thread on the processor of the one that wakes it unless it sees an idle one, and on a virtual machine
    it does not see those, for the host has put them to sleep: two threads that were to share work then take turns on
    one processor, for a few milliseconds or for seconds. `thread` is a native identifier.
    """
    with contextlib.suppress(OSError):  # where that is not allowed, the thread runs where the system likes
        if others := os.sched_getaffinity(0) - {processor}:
            os.sched_setaffinity(thread, others)
