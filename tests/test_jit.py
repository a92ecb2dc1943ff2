"""How kernels are compiled: once, for one signature, in vectors of the processor's size."""

import numpy as np
import pytest
from numba import types

from minimobile_kernels import _jit, simd


def double(x, out):
    out[0] = 2 * x[0]


def test_nothing_but_the_first_call_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    function = _jit.entry(types.Array(types.int64, 1, "C", readonly=True), types.int64[::1])(double)
    x, out = np.array([21]), np.zeros(1, np.int64)
    function(x, out)
    x.flags.writeable = False
    function(x, out)
    assert out[0] == 42 and len(function.dispatcher.signatures) == 1
    with pytest.raises(TypeError):
        function(x.astype(np.float32), out)


@pytest.mark.parametrize(
    ("name", "features", "machine", "expected"),
    [
        (None, ["avx512f", "fma"], "x86_64", (16, 32)),
        (None, ["avx2", "fma"], "AMD64", (8, 16)),
        (None, [], "x86_64", (4, 16)),
        ("haswell", ["avx512f"], "x86_64", (8, 16)),
        ("skylake-avx512", [], "x86_64", (16, 32)),
        ("znver4", [], "x86_64", (16, 32)),
        ("znver2", [], "x86_64", (8, 16)),
        ("generic", ["avx512f"], "x86_64", (4, 16)),
        (None, ["neon", "fp-armv8"], "aarch64", (4, 32)),
        (None, [], "aarch64", (4, 32)),
        ("generic", [], "arm64", (4, 32)),
    ],
)
def test_vector_sizes_follow_the_cpu(name, features, machine, expected):
    assert simd.host_vectors(name, features, machine) == expected


def test_vectors_hold_at_least_one_float():
    assert simd.LANES in (4, 8, 16) and np.float32().itemsize == 4
