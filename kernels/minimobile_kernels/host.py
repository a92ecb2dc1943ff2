"""The processor that machine code is for: its name, its features, and the size and number of its vector registers.

`LANES` and `REGISTERS` are chosen here and nowhere else; no choice changes a bit of any result, because sums run along
registers, never across the lanes of one.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

import llvmlite.binding as llvm

_AVX512_NAMES = ("avx512", "skx", "cascadelake", "cooperlake", "icelake", "tigerlake", "rapids", "znver4", "znver5")
_AARCH64_NAMES = ("aarch64", "arm64")
_AVX2_NAMES = ("haswell", "broadwell", "skylake", "alderlake", "raptorlake", "meteorlake", "znver")


def host_vectors(cpu_name: str | None, features: Sequence[str], machine: str) -> tuple[int, int]:
    """Return (float32 lanes of a vector, number of vector registers) for a CPU of an architecture.

    `machine` is what `platform.machine()` says. Every AArch64 has NEON, four lanes in 32 registers. Among the others
    `cpu_name` is the CPU that Numba was told to compile for (`NUMBA_CPU_NAME`), or None for the host, whose `features`
    then decide. An unknown CPU gets four lanes, which every LLVM target can compile.
    """
    if machine.lower() in _AARCH64_NAMES:
        return 4, 32
    if cpu_name:
        if any(name in cpu_name for name in _AVX512_NAMES):
            return 16, 32
        return (8, 16) if any(name in cpu_name for name in _AVX2_NAMES) else (4, 16)
    if "avx512f" in features:
        return 16, 32
    return (8, 16) if "fma" in features else (4, 16)


def host() -> tuple[str | None, list[str], str]:
    """Return the CPU that Numba was told to compile for, the features of the one at hand, and its architecture.

    There are no features where LLVM finds none: on AArch64 it reads /proc/cpuinfo, which an emulator shows as it is on
    the machine that it runs on, and on macOS it does not look.
    """
    name = os.environ.get("NUMBA_CPU_NAME")
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:
        features = {}
    found = [name for name, is_there in features.items() if is_there]
    return name if name not in (None, "", "host") else None, found, platform.machine()


LANES, REGISTERS = host_vectors(*host())
