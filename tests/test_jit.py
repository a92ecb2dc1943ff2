"""How kernels are compiled: once, for one signature, in vectors of the processor's size."""

import numba
import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

from minimobile_kernels import _jit, elf, host
from minimobile_kernels.abi import THREAD, Array, Number
from minimobile_kernels.native import Entry


def double(x, out):
    out[0] = 2 * x[0]


INT64 = np.dtype(np.int64)


def test_whatever_fits_runs_the_same_code_and_nothing_else_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    function = Entry("test_jit", "double", Array(INT64), Array(INT64, is_written=True))
    x, out = np.array([21]), np.zeros(1, np.int64)
    function(x, out)
    monkeypatch.setattr(_jit, "compile_entry", None)  # nothing compiles again
    x.flags.writeable = False
    function(x, out)
    assert out[0] == 42
    out[0] = 0
    function(x.view(np.dtype(np.int64, metadata={"of": "another"})), out)
    assert out[0] == 42
    for given in (x.astype(np.float32), np.array([[21]]), np.arange(4)[::2], [21], None):
        with pytest.raises(TypeError, match=r"double: expected \(Array"):
            function(given, out)
    out.flags.writeable = False
    with pytest.raises(TypeError, match=r"double: expected \(Array"):
        function(x, out)


def scale(x, out, factor, count, thread):
    out[thread, count - 1] = x[1, 2] * factor


def test_every_kind_of_argument_arrives(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    float32 = np.dtype(np.float32)
    parameters = Array(float32, 2), Array(float32, 2, is_written=True), Number(np.dtype(np.float64)), Number(), THREAD
    function = Entry("test_jit", "scale", *parameters)
    x, out = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((2, 4), np.float32)
    function(x, out, -0.5, 3, 1)
    call = function.bind(x, out, 2.0, 4)
    del x
    call(0)
    assert out.tolist() == [[0, 0, 0, 10], [0, 0, -2.5, 0]]


def calls_numba(x, out):
    out[0] = x.copy()[0]


def test_what_needs_numba_at_run_time_is_refused(tmp_path, monkeypatch):
    """Where machine code is loaded, Numba's own functions are not there: it would end the process."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    function = Entry("test_jit", "calls_numba", Array(INT64), Array(INT64, is_written=True))
    with pytest.raises(AssertionError, match=r"compiled code calls .*NRT_"):
        function(np.array([21]), np.zeros(1, np.int64))


@_jit.compiled
def larger(x, bound):
    return max(x, bound)


def keeps_larger(x, out):
    start = 0
    for value in x:
        start = larger(start, value)
    out[0] = larger(start, 40) + larger(start, 2)


def test_constants_are_numbers_and_numba_still_compiles_for_others(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    function = Entry("test_jit", "keeps_larger", Array(INT64), Array(INT64, is_written=True))
    out = np.zeros(1, np.int64)
    function(np.array([1, 21]), out)
    assert out[0] == 40 + 21 and len(larger.overloads) == 1
    assert numba.njit(lambda x: max(x, 3))(2) == 3  # in the same process, of pieces that both have


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
    assert host.host_vectors(name, features, machine) == expected


@pytest.mark.skipif(not elf.is_for_this_system(), reason="elsewhere LLVM is asked, or knows nothing")
def test_linux_and_llvm_agree_on_the_features_that_kernels_are_chosen_by():
    known = get_host_cpu_features()
    chosen_by = ("avx512f", "avx512bw", "avx512vnni", "avxvnni", "avx2", "fma")
    assert {name for name in chosen_by if name in host.host()[1]} == {name for name in chosen_by if known.get(name)}


def test_what_tells_processors_apart_does_not_change_from_moment_to_moment():
    lines = "model\t\t: {}\nmodel name\t: A B\ncpu MHz\t\t: {}\nflags\t\t: fma avx_vnni\n\n"
    found = host.read_cpuinfo("".join(f"processor\t: {n}\n{lines.format(17, n)}" for n in range(2)))
    assert found == ("flags=fma avx_vnni model=17", ["avxvnni", "fma"])
    assert host.read_cpuinfo(lines.format(17, 9)) == found != host.read_cpuinfo(lines.format(18, 9))
    mixed = host.read_cpuinfo("CPU part\t: 0xd0b\nFeatures: asimd\n\nCPU part\t: 0xd05\nFeatures: asimd\n")
    assert mixed == ("CPU part=0xd05 CPU part=0xd0b Features=asimd", ["asimd"])
    assert host.read_cpuinfo("") == ("", [])


def test_vectors_hold_at_least_one_float():
    assert host.LANES in (4, 8, 16) and np.float32().itemsize == 4
