"""Helpers for one native call: threads that wait for work, join a call, and go back to waiting."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

import numpy as np

from minimobile.errors import InputError

Task = Callable[[], object]
BACKLOG = 4  # calls that may wait for a helper; who finds that many does not ask


def default_thread_count() -> int:
    """Return `MINIMOBILE_NUM_THREADS`, or the number of processors that this process may use."""
    given = os.environ.get("MINIMOBILE_NUM_THREADS")
    if given is not None:
        return check_thread_count(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_thread_count(value: object) -> int:
    """Return a number of threads as an int."""
    text = str(value).strip()
    count = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= count <= 1024:
        raise InputError(f"num_threads: expected a whole number from 1 to 1024, got {value!r}")
    return count


class Crew:
    """The helper threads of one engine: they wait for calls to help with.

    A helper that is busy with one call, or that the machine does not let run, comes late to the next; so the work must
    be such that whoever is there can do all of it. `bell` is where compiled code says that a call has begun: helpers
    listen to it for a moment after their work, before they go to sleep. After a fork the child process has no threads;
    the crew notices and starts new ones.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.bell = np.zeros(1, np.int64)
        self._process = 0
        self._lock = threading.Lock()
        self._queues: list[SimpleQueue[Task | None]] = []

    def invite(self, work: Callable[[int], object]) -> None:
        """Ask every helper to call work(thread), with thread 1, 2, ...; do not wait for any."""
        if self.size and self._process != os.getpid():
            self._start()
        for thread, queue in enumerate(self._queues, start=1):
            if queue.qsize() < BACKLOG:
                queue.put(partial(work, thread))

    def _start(self) -> None:
        with self._lock:
            if self._process == os.getpid():
                return
            self._queues = [SimpleQueue() for _ in range(self.size)]
            for queue in self._queues:
                threading.Thread(target=_serve, args=(queue,), name="minimobile-helper", daemon=True).start()
            self._process = os.getpid()

    def __del__(self) -> None:
        for queue in self._queues:
            queue.put(None)


def _serve(queue: SimpleQueue[Task | None]) -> None:
    while True:
        task = queue.get()
        if task is None:
            return
        task()
        del task  # or it would keep the last call's memory alive
