"""The processor that machine code is for: its name, its features, and the size and number of its vector registers.

`LANES` and `REGISTERS` are chosen here and nowhere else; no choice changes a bit of any result, because sums run along
registers, never across the lanes of one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

_AVX512_NAMES = ("avx512", "skx", "cascadelake", "cooperlake", "icelake", "tigerlake", "rapids", "znver4", "znver5")
_AARCH64_NAMES = ("aarch64", "arm64")
_AVX2_NAMES = ("haswell", "broadwell", "skylake", "alderlake", "raptorlake", "meteorlake", "znver")
_FLAGS = ("flags", "Features")  # of x86, of AArch64
_CPUINFO = (
    *_FLAGS, "vendor_id", "cpu family", "model", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip


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

    The features are as LLVM calls them, but for its dots and hyphens. There are none where LLVM finds none: on macOS it
    does not look. An emulator of AArch64 shows /proc/cpuinfo as it is on the machine that it runs on.
    """
    name = os.environ.get("NUMBA_CPU_NAME")
    return name if name not in (None, "", "host") else None, _processor()[1], platform.machine()


def description() -> str:
    """Return what tells this processor from all for which other machine code would be made."""
    return f"{sys.platform} {host()} {_processor()[0]}"


@functools.cache
def _processor() -> tuple[str, list[str]]:
    """Return which processor this is, and the names of its features: from Linux, or else from LLVM.

    LLVM takes 0.05 s to import, and 40 MB.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            found = read_cpuinfo(Path("/proc/cpuinfo").read_text("ascii", "replace"))
            if found[1]:
                return found
    llvm = import_module("llvmlite.binding")
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:
        features = {}
    name = f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()}"
    return name, [feature for feature, is_there in features.items() if is_there]


def read_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Return what /proc/cpuinfo says of the processors that holds from one moment to the next, and their features.

    >>> read_cpuinfo("processor: 0\\nmodel : 17\\ncpu MHz : 1.5\\nflags : fma avx512_vnni")
    ('flags=fma avx512_vnni model=17', ['avx512vnni', 'fma'])
    """
    pairs = [line.partition(":")[::2] for line in text.splitlines()]
    told = {(key.strip(), value.strip()) for key, value in pairs if key.strip() in _CPUINFO}
    flags = sorted({flag.replace("_", "") for key, value in told if key in _FLAGS for flag in value.split()})
    return " ".join(f"{key}={value}" for key, value in sorted(told)), flags


LANES, REGISTERS = host_vectors(*host())
