"""Helpers for one native call: threads that wait for work, join a call, and go back to waiting."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from minimobile.errors import InputError

Task = Callable[[], None]


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
    """The helper threads of one engine. They serve one call at a time: whoever finds them busy works alone.

    After a fork the child process has no threads; the crew notices and starts new ones.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._process = 0
        self._start_lock = threading.Lock()
        self._is_free = threading.Semaphore(1)
        self._queues: list[SimpleQueue[Task | None]] = []

    def run(self, work: Callable[[int, int], object], abort: Callable[[], None]) -> None:
        """Call work(thread, threads) once per thread, thread 0 being the caller's, and wait for all to end.

        The parts may wait for one another; `abort` tells those that wait to give up when this thread is interrupted.
        """
        if self.size == 0 or not self._reserve():
            work(0, 1)
            return
        threads = self.size + 1
        ended = SimpleQueue[int]()
        started = 0
        try:
            for thread, queue in enumerate(self._queues, start=1):
                started += 1
                queue.put(lambda thread=thread: _report(work, thread, threads, ended))  # type: ignore[misc]
            work(0, threads)
        except BaseException:
            abort()
            raise
        finally:
            for _ in range(started):
                ended.get()
            self._is_free.release()

    def _reserve(self) -> bool:
        if self._process != os.getpid():
            self._start()
        return self._is_free.acquire(blocking=False)

    def _start(self) -> None:
        with self._start_lock:
            if self._process == os.getpid():
                return
            self._is_free = threading.Semaphore(1)
            self._queues = [SimpleQueue() for _ in range(self.size)]
            for queue in self._queues:
                threading.Thread(target=_serve, args=(queue,), name="minimobile-helper", daemon=True).start()
            self._process = os.getpid()

    def __del__(self) -> None:
        for queue in self._queues:
            queue.put(None)


def _report(work: Callable[[int, int], object], thread: int, threads: int, ended: SimpleQueue[int]) -> None:
    try:
        work(thread, threads)
    finally:
        ended.put(thread)


def _serve(queue: SimpleQueue[Task | None]) -> None:
    while True:
        task = queue.get()
        if task is None:
            return
        task()
        del task  # or it would keep the last call's memory alive
