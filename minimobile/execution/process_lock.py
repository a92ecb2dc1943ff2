"""A lock that means the threads of one process."""

from __future__ import annotations

import os
import threading


class ProcessLock:
    """A lock that a forked child finds open: whoever held it when the process was forked is no thread of the child's.

    `with lock.here(): ...`
    """

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def here(self) -> threading.Lock:
        """Return the lock of this process."""
        return self._locks.setdefault(os.getpid(), threading.Lock())
