"""What a report of a difference has to say besides: which versions ran, and on which processor."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

_ALWAYS = ("minimobile", "numpy", "numba")
_OTHERS = {
    "torch": "torch", "transformers": "transformers", "tensorflow": "tensorflow", "keras": "keras",
    "ai_edge_litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino",
}  # fmt: skip
"""Package of an import -> what its distribution is called."""
_DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu")}


def describe_environment() -> dict[str, str]:
    """Return versions by package: ours, and of frameworks those that have been imported; system and processor."""
    found = {"python": platform.python_version()}
    found |= {name: version for name in _ALWAYS if (version := _find_version(name))}
    for package, distribution in _OTHERS.items():
        version = _find_version(distribution) if package in sys.modules else None
        if version is not None:
            found[distribution] = version
    return found | {"system": platform.platform(), "processor": name_processor(), "cores": str(os.cpu_count() or 0)}


def name_processor() -> str:
    """Return what the system calls the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():  # Linux, where `platform` knows the architecture alone
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine()


def _find_version(distribution: str) -> str | None:
    for name in _DISTRIBUTIONS.get(distribution, (distribution,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
