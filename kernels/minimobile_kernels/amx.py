"""Intel's matrix registers (AMX): whether the processor has them for bytes, and whether this process may use them."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Sequence

from minimobile_kernels.host import LANES, host

ROWS, ROW_BYTES = 16, 64  # of a tile, at most: a matrix register
_NAMES = ("sapphirerapids", "emeraldrapids", "graniterapids", "diamondrapids")
_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA = 158, 0x1023, 18  # of Linux: a system call, what is asked, and for what


def host_tiles(cpu_name: str | None, features: Sequence[str], machine: str) -> bool:
    """Tell whether a CPU multiplies tiles of bytes; arguments as for `host.host_vectors`."""
    if machine.lower() not in ("x86_64", "amd64"):
        return False
    if cpu_name:
        return any(name in cpu_name for name in _NAMES)
    return {"amxtile", "amxint8", "avx512f", "avx512bw", "avx512vnni"} <= set(features)


def leaves_tiles(told: str | None) -> bool:
    """Tell whether Numba compiles for tiles if it was told these features (`NUMBA_CPU_FEATURES`); None: the CPU's."""
    return told is None or {"+amx-tile", "+amx-int8"} <= set(told.split(","))


HAS_TILES = (
    LANES == ROWS
    and sys.platform == "linux"
    and host_tiles(*host())
    and leaves_tiles(os.environ.get("NUMBA_CPU_FEATURES"))
)


@functools.cache
def may_use_tiles() -> bool:
    """Ask the system for the use of tiles, once: threads and children of this process then have it, too.

    Linux gives it since 5.16, unless a thread's stack for signals is too small for 8 KiB more (its documentation,
    arch/x86/xstate). Without it the first instruction on a tile would end the process.
    """
    if not HAS_TILES:
        return False
    call = ctypes.CDLL(None).syscall
    return bool(call(_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA) == 0)
