"""How helpers find the calls of their crew in compiled code, and what a caller says to them: see `mailbox.py`."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.mailbox import CALL, FUNCTION, HAZARD, IS_OVER, IS_VISITED, SERVED, TABLE
from minimobile_kernels.step import LINE
from minimobile_kernels.sync import atomic_add, atomic_load, atomic_store, call_address, relax, yield_processor

BREATH = 16  # spins between two offers of the processor to others


@compiled
def begin(mailbox: Any, thread: int, threads: int) -> None:
    """Let the helpers that listen have this call."""
    if thread == 0 and threads > 1:
        atomic_add(mailbox, CALL, 1)


@compiled
def end(mailbox: Any, thread: int, threads: int) -> None:
    """Let nobody come any more, and note for Python whether somebody is still there."""
    if thread == 0 and threads > 1:
        atomic_add(mailbox, CALL, 1)
        visits = 0
        for helper in range(1, threads):
            visits += atomic_load(mailbox, HAZARD + (helper - 1) * LINE) != 0
        mailbox[IS_VISITED] = visits


def serve(mailbox: Any, patience: int, helper: int) -> None:
    """Take part in every call, as thread `helper` of it, until none has begun for `patience` spins.

    To wake a thread that sleeps takes as long as a small network, and one that goes through Python for the next call
    comes 20 us late.

    Shapes: mailbox as `mailbox.make_mailbox` returns it, for `helper` helpers or more.
    """
    place = (helper - 1) * LINE
    spins = 0
    while spins < patience and atomic_load(mailbox, IS_OVER) == 0:
        call = atomic_load(mailbox, CALL)
        if call % 2 == 0 or call == atomic_load(mailbox, SERVED + place):
            relax()
            spins += 1
            if spins % BREATH == 0:
                yield_processor()  # the caller may have to run on this one
            continue
        function, table = atomic_load(mailbox, FUNCTION), atomic_load(mailbox, TABLE)
        atomic_store(mailbox, HAZARD + place, call)
        if atomic_load(mailbox, CALL) == call:
            call_address(function, table, helper)
        atomic_store(mailbox, HAZARD + place, 0)
        atomic_store(mailbox, SERVED + place, call)
        spins = 0
