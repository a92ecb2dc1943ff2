"""Helpers for native calls: threads that join whatever call there is, and sleep where there is none for a while."""

from __future__ import annotations

import os
import threading
import time
import weakref
from queue import SimpleQueue
from typing import Any

import numpy as np

from minimobile.execution import processors
from minimobile.execution.account import Account
from minimobile.execution.process_lock import ProcessLock
from minimobile_kernels import entries
from minimobile_kernels.mailbox import (
    CALL,
    FUNCTION,
    HAZARD,
    IS_OVER,
    IS_VISITED,
    TABLE,
    make_mailbox,
)
from minimobile_kernels.native import Call, Entry
from minimobile_kernels.step import ENTRIES, LINE

PATIENCE = 3000  # spins of a helper without work: about 200 microseconds, many times what lies between calls in a row
_NOTHING = np.zeros(1, np.int64)  # control and mailbox of a call that goes alone, which does not look at them


class Crew:
    """The helper threads of one engine: they join its calls.

    A helper listens in machine code (`minimobile_kernels.crew`), and sleeps when it has heard nothing for a while. One
    that is asleep, or that the machine does not let run, comes late; so the work must be such that whoever is there
    can do all of it. One call at a time has the helpers; those of other threads that begin meanwhile go on alone.
    After a fork the child process has no threads; the crew notices and starts new ones.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._station: _Station | None = None
        self._is_shared = False  # the last call
        self._lock = ProcessLock()

    def run(
        self, entry: Entry, arguments: tuple[Any, ...], account: Account | None = None, is_for_all: bool = True
    ) -> None:
        """Call an entry whose last parameters are control, mailbox, threads and thread, with helpers if that is faster.

        `arguments` are those before, of which the first are the steps of a program; `account` says whether helpers
        make calls of this program faster. None: they come in any case. Where the program is not `is_for_all` threads of
        the crew, but for one, the call goes alone whatever the account says.
        """
        if account is not None and account.rest > 0:  # counted here: every function costs a cold call 1 us
            account.rest -= 1
            self._is_shared = False
        elif self.size:
            station = self._station
            if station is None or station.process != os.getpid():
                station = self._start()
            self._is_shared = station.run(entry, arguments, account, is_for_all)
            return
        entry.bind(*arguments, _NOTHING, _NOTHING, 1)(0)

    def rouse(self) -> None:
        """Wake the helpers for a call that comes at once, if they had the last one: they listen until then."""
        station = self._station
        if self._is_shared and station is not None and station.process == os.getpid():
            station.rouse()

    def _start(self) -> _Station:
        with self._lock.here():
            station = self._station
            if station is None or station.process != os.getpid():
                station = _Station(self.size)
                station.start()
                weakref.finalize(self, station.close)
                self._station = station
            return station


class _Helper:
    """One helper: its number, which is that of its thread in a call, whether it sleeps, and what wakes it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_awake = False
        self._alarm: SimpleQueue[bool] = SimpleQueue()
        self._identifier = 0
        self._kept_off: int | None = None

    def keep_off(self, processor: int | None) -> None:
        """Have the helper run on another processor than this, which is the caller's."""
        if processor is not None and processor != self._kept_off and self._identifier:
            processors.keep_off(self._identifier, processor)
            self._kept_off = processor

    def rouse(self) -> None:
        """Wake the helper, if it sleeps."""
        if not self.is_awake and self._alarm.empty():
            self._alarm.put(True)

    def dismiss(self) -> None:
        """Wake the helper for the last time."""
        self._alarm.put(False)

    def sleep(self) -> bool:
        """Sleep, and tell why it was woken: True for a call, False to leave."""
        self._identifier = threading.get_native_id()
        self.is_awake = self._alarm.get()
        return self.is_awake


class _Station:
    """What a crew shares with its helpers, which may outlive it for a moment: the mailbox, and calls they may be at."""

    def __init__(self, size: int) -> None:
        self.process = os.getpid()
        self._mailbox = make_mailbox(size)
        self._fields = self._mailbox.data
        self._threads = size + 1
        self._helpers = [_Helper(number) for number in range(1, size + 1)]
        self._serve = entries.serve.bind(self._mailbox, PATIENCE)  # compiled here if need be, not by a helper
        self._is_open = False
        self._calls: list[tuple[int, Call]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the helpers."""
        for helper in self._helpers:
            threading.Thread(target=self._help, args=(helper,), name="minimobile-helper", daemon=True).start()

    def close(self) -> None:
        """Have the helpers leave."""
        self._fields[IS_OVER] = 1
        for helper in self._helpers:
            helper.dismiss()

    def run(self, entry: Entry, arguments: tuple[Any, ...], account: Account | None, is_for_all: bool) -> bool:
        """See `Crew.run`; return whether the helpers were asked to come."""
        if not self._lock.acquire(blocking=False):  # the helpers are at the call of another thread
            _run_alone(entry, arguments)
            return False
        try:
            start = time.perf_counter()
            shares = is_for_all and (account is None or account.to_share > 0)
            if shares:
                self._share(entry, arguments)
            else:
                _run_alone(entry, arguments)
            if account is not None:
                account.note(time.perf_counter() - start, shares)
            return shares
        finally:
            self._is_open = False
            self._lock.release()

    def rouse(self) -> None:
        """Wake the helpers that sleep, on another processor than this."""
        here = processors.find_current()
        for helper in self._helpers:
            helper.keep_off(here)
            helper.rouse()

    def _share(self, entry: Entry, arguments: tuple[Any, ...]) -> None:
        fields = self._fields
        control = np.zeros(len(arguments[0]) * self._threads * ENTRIES, np.int64)
        call = entry.bind(*arguments, control, self._mailbox, self._threads)
        self._calls.append((fields[CALL] + 1, call))  # kept from now on, whatever interrupts this thread
        fields[FUNCTION], fields[TABLE] = call.places()
        self._is_open = True
        self.rouse()
        call(0)
        if fields[IS_VISITED]:
            visited = {fields[HAZARD + index * LINE] for index in range(len(self._helpers))}
            self._calls[:] = [(number, call) for number, call in self._calls if number in visited]
        else:
            self._calls.clear()

    def _help(self, helper: _Helper) -> None:
        while helper.sleep():
            self._serve(helper.number)
            helper.is_awake = False
            # Who begins a call sets `is_open` before looking who is awake: either it has woken this helper, or here
            # is seen what this helper was thought to hear.
            if self._is_open:
                self._serve(helper.number)


def _run_alone(entry: Entry, arguments: tuple[Any, ...]) -> None:
    entry.bind(*arguments, _NOTHING, _NOTHING, 1)(0)
