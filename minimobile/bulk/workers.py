"""Supervised workers: processes that compute parts, are replaced when they die, and blame no innocent picture.

Pools of the standard library hang or give up when a process of theirs dies. Here a part whose worker died is begun
again by a new one, a picture at a time; only a picture at which several workers in a row have died becomes a row with
an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minimobile.bulk.entries import describe_entry
from minimobile.bulk.files import clear_of_process
from minimobile.bulk.options import BulkOptions
from minimobile.bulk.part_runner import PartReport
from minimobile.bulk.plan import Part
from minimobile.errors import FormatError, MinimobileError

STRIKES = 3  # deaths at one picture before it is blamed: a machine that ends processes at random must not look like one
COMMAND = (sys.executable, "-m", "minimobile.bulk.worker")
PATIENCE = 300.0  # seconds without a word, before a worker counts as dead
Heard = Callable[[Part, int], None]


class Worker:
    """One process at a time, and a new one where it dies. Used by one thread, but `stop` may be called by any."""

    def __init__(self, options: BulkOptions, threads: int, folder: Path) -> None:
        self._first = {"options": options.to_dict(), "threads": threads, "folder": str(folder)}
        self._model = options.model
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._words: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._is_stopped = False

    def run(self, part: Part, hear: Heard) -> PartReport:
        """Compute a part, with as many processes as it takes. Raises FormatError for what stops the whole run."""
        killers: dict[int, str] = {}
        strikes: dict[int | None, int] = {}
        is_careful = False
        while True:
            at: int | None = None
            for words in self._ask(part, is_careful, killers):
                if "done" in words:
                    return PartReport(**words["done"])
                if "failed" in words:
                    raise FormatError(words["failed"])
                at = words.get("at", at)
                hear(part, words.get("rows", 0))
            if self._is_stopped:
                raise StoppedError
            ending = self._bury()
            strikes[at] = strikes.get(at, 0) + 1
            if strikes[at] >= STRIKES and at is not None:
                path = _name(part, at)
                killers[at] = f"{path}: expected a picture, found what ends the process that reads it ({ending})"
            elif strikes[at] > 2 * STRIKES:
                raise FormatError(f"{part.name}: expected a worker to compute it, but each of them ended ({ending})")
            is_careful = True

    def stop(self) -> None:
        """End the process, in whatever it does."""
        self._is_stopped = True
        self._bury()

    def _ask(self, part: Part, is_careful: bool, killers: dict[int, str]) -> Iterator[dict[str, Any]]:
        """Yield what the process says of a part until it has said the last, or is dead."""
        process = self._process or self._start()
        if process is None:
            return
        order = {"part": dataclasses.asdict(part), "is_careful": is_careful, "killers": killers}
        _tell(process, order)
        while True:
            try:
                words = self._words.get(timeout=PATIENCE)
            except queue.Empty:
                return
            if words is None:
                return
            yield words
            if "done" in words or "failed" in words:
                return

    def _start(self) -> subprocess.Popen[str] | None:
        """Return a process that has loaded the model, or None where the run was stopped."""
        ending = "never begun"
        for _ in range(STRIKES):
            if self._is_stopped:
                return None
            process = self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
            )  # fmt: skip
            self._words = queue.SimpleQueue()
            self._listener = threading.Thread(target=_listen, args=(process, self._words), daemon=True)
            self._listener.start()
            _tell(process, self._first)
            words = self._words.get()
            if words is not None and "failed" in words:
                raise FormatError(words["failed"])
            if words is not None:
                return process
            ending = self._bury()
        raise FormatError(f"worker: expected it to load {self._model}, but it ended ({ending})")

    def _bury(self) -> str:
        """Remove what is left of the process, and return how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "no process"
        process.kill()
        code = process.wait()
        with contextlib.suppress(OSError):  # what it did not read any more
            assert process.stdin is not None
            process.stdin.close()
        if self._listener is not None:
            self._listener.join()
        clear_of_process(self._folder, process.pid)
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class StoppedError(MinimobileError):
    """The run was stopped from outside."""


def _tell(process: subprocess.Popen[str], words: dict[str, Any]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # a process that is dead says so by its end
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()


def _listen(process: subprocess.Popen[str], words: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    with process.stdout, contextlib.suppress(ValueError, OSError):
        for line in process.stdout:
            words.put(json.loads(line))
    words.put(None)


def _name(part: Part, row: int) -> str:
    return describe_entry(part.entries()[row])
