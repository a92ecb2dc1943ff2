"""Which instructions the kernels of bytes take on which processor, and the same bytes with each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minimobile_kernels.quantized import integers


@pytest.mark.parametrize(
    ("name", "features", "lanes", "expected"),
    [
        (None, ["avx512f", "avx512bw", "avx512vnni"], 16, "vpdpbusd"),
        (None, ["avx512f", "avx512bw"], 16, "pmaddwd"),
        (None, ["avx2", "avxvnni"], 8, "vpdpbusd"),
        (None, ["avx2"], 8, "pmaddwd"),
        (None, ["neon"], 4, "multiply"),
        ("cascadelake", [], 16, "vpdpbusd"),
        ("skylake-avx512", ["avx512vnni"], 16, "pmaddwd"),
        ("haswell", [], 8, "pmaddwd"),
        ("generic", ["avx2"], 4, "multiply"),
    ],
)
def test_products_follow_the_cpu(name, features, lanes, expected):
    assert integers.host_products(name, features, lanes) == expected


@pytest.mark.parametrize(
    ("name", "features", "lanes", "expected"),
    [
        (None, ["avx512f", "avx512bw", "avx512vbmi"], 16, True),
        (None, ["avx512f", "avx512bw", "avx512vnni"], 16, False),
        ("cascadelake", ["avx512vbmi"], 16, False),
        ("sapphirerapids", [], 16, True),
        ("znver4", [], 16, True),
        ("haswell", [], 8, False),
    ],
)
def test_shuffles_follow_the_cpu(name, features, lanes, expected):
    assert integers.host_shuffles(name, features, lanes) is expected


TESTS = [Path(__file__).with_name(f"test_quantized_{name}.py") for name in ("convolutions", "maps", "processors")]
OTHERS = {
    "haswell": ("+avx2,+fma,+avx,+sse4.2", 8, "pmaddwd"),
    "skylake-avx512": ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma", 16, "pmaddwd"),
    "cascadelake": ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni,+avx2,+fma", 16, "vpdpbusd"),
    "generic": ("", 4, "multiply"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_code_for_other_processors_gives_the_same_bytes(name, tmp_path):
    features, lanes, products = OTHERS[name]
    cpu = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **cpu}
    told = "from minimobile_kernels.quantized.integers import LANES, PRODUCTS; print(LANES, PRODUCTS)"
    done = subprocess.run([sys.executable, "-c", told], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(lanes), products]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        *map(str, TESTS),
    ]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
