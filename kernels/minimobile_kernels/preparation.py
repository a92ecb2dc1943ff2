"""Compiling on two processors: the code of an engine in this process, and all that is small in another one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from minimobile_kernels import entries, kernel_cache
from minimobile_kernels.native import Entry

ENGINES = ("run", "run_quantized")
"""The entries that take longest to compile. A process needs one of them, as a rule."""
RARE = ("detect_bytes",)
"""The entries that are left to their first call, `run_quantized` of a detector: they take 2.5 s."""
_PROGRAM = "import sys; from minimobile_kernels import preparation; preparation.load_entries(sys.argv[1:])"


def prepare(engine: str) -> None:
    """Have an engine's machine code in memory, compiled if it is not on disk.

    If so, all other entries but the engines and what is rare, which take as long together, are compiled meanwhile by
    another process, which puts them on disk.
    """
    if getattr(entries, engine).address:
        return
    is_there = getattr(entries, engine).is_ready()
    load_on_two([engine], [] if is_there else [name for name in missing_entries() if name not in (*ENGINES, *RARE)])


def prepare_all() -> None:
    """Have all entries in memory but one engine and what is rare, and these on disk."""
    missing, second = missing_entries(), (ENGINES[1], *RARE)
    load_on_two([name for name in missing if name not in second], [name for name in second if name in missing])


def load_on_two(here: Sequence[str], there: Sequence[str]) -> None:
    """Load entries of `minimobile_kernels.entries` by name, while another process compiles others.

    The second process is not started where there is no processor for it, or no place to keep what it compiles: what is
    not there afterwards is compiled when it is called.
    """
    if not there or not _can_share():
        load_entries(here)
        return
    import subprocess  # where nothing is compiled, none is needed

    # stderr, too: what goes wrong there happens again here, if it matters
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *there],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as helper:  # fmt: skip
        try:
            load_entries(here)
        except BaseException:
            helper.kill()
            raise


def missing_entries() -> list[str]:
    """Return the names of the entries that are not compiled."""
    found = {name: entry for name, entry in vars(entries).items() if isinstance(entry, Entry)}
    return [name for name, entry in found.items() if not entry.is_ready()]


def load_entries(names: Sequence[str]) -> None:
    """Put entries into memory: those that are not on disk are compiled, and put there."""
    for name in names:
        getattr(entries, name).load()


def _can_share() -> bool:
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    has_python = bool(sys.executable) and not getattr(sys, "frozen", False)
    return processors > 1 and has_python and kernel_cache.can_write()
