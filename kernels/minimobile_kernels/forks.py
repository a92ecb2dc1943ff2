"""Locks of processes that are forked."""

from __future__ import annotations

import os
import threading


def make_lock() -> threading.RLock:
    """Return a lock for a module's own use that no other thread holds while this process is forked.

    A child has none of its parent's threads: what one of them had begun would stay half done there, and locked. A fork
    waits until it is done. The lock may be taken again by the thread that has it, so that a signal's handler which
    comes meanwhile may do the same, or fork. The process keeps it for ever: make few.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
