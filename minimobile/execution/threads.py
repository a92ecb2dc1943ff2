"""How many threads a run has: what is asked for, or what the machine has."""

from __future__ import annotations

import os

from minimobile.errors import InputError


def default_thread_count() -> int:
    """Return `MINIMOBILE_NUM_THREADS`, or the number of processors that this process may use. Raises InputError."""
    given = os.environ.get("MINIMOBILE_NUM_THREADS")
    if given is not None:
        return check_thread_count(given, "MINIMOBILE_NUM_THREADS")
    return count_processors()


def count_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_thread_count(value: object, name: str = "num_threads") -> int:
    """Return a number of threads as an int; `name` is who gave it."""
    text = str(value).strip()
    count = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= count <= 1024:
        raise InputError(f"{name}: expected a whole number from 1 to 1024, got {value!r}")
    return count
