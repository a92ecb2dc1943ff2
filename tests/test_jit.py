"""The cache of machine code (H34): found again, never trusted when damaged, never kept where others may write."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import types

import minimobile
from minimobile_kernels import _jit, simd

PROGRAM = """
import tests.test_jit as test
print(*test.double_21())
"""

PROBE = """
import contextlib, pathlib, minimobile, minimobile_kernels
for package in (minimobile, minimobile_kernels):
    print(place := pathlib.Path(package.__file__).parent)
    with contextlib.suppress(PermissionError):
        (place / "written").touch()
"""


def double(x, out):
    out[0] = 2 * x[0]


READ, WRITTEN = types.Array(types.int64, 1, "C", readonly=True), types.int64[::1]


def double_21():
    """Return whether the machine code was there, its result, and how often it was taken from the disk."""
    function = _jit.entry(READ, WRITTEN)(double)
    was_there = function.is_ready()
    out = np.zeros(1, np.int64)
    function(np.array([21]), out)
    return was_there, int(out[0]), len(function.dispatcher.stats.cache_hits)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_code_is_compiled_once_and_then_taken_from_the_disk(directory):
    assert double_21() == (False, 42, 0)
    assert double_21() == (True, 42, 1)


@pytest.mark.parametrize(("suffix", "damage"), [("nbi", b""), ("nbi", b"garbage"), ("nbc", b"\x80\x04.")])
def test_damaged_code_is_compiled_again(directory, damage, suffix):
    double_21()
    files = list(directory.rglob(f"*.{suffix}"))
    assert files
    for file in files:
        file.write_bytes(damage)
    assert double_21()[1:] == (42, 0)
    assert double_21() == (True, 42, 1)


def test_nothing_but_the_first_call_compiles(directory):
    function = _jit.entry(READ, WRITTEN)(double)
    x, out = np.array([21]), np.zeros(1, np.int64)
    function(x, out)
    x.flags.writeable = False
    function(x, out)
    assert out[0] == 42 and len(function.dispatcher.signatures) == 1
    with pytest.raises(TypeError):
        function(x.astype(np.float32), out)


def test_processes_that_start_at_once(directory):
    command = [sys.executable, "-c", PROGRAM]
    environment = {"NUMBA_CACHE_DIR": str(directory), "PATH": "", "PYTHONPATH": ":".join([*sys.path, "."])}
    children = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        out, err = child.communicate(timeout=100)
        assert out.split()[1:2] == ["42"], err
    assert double_21() == (True, 42, 1)


def obey_file_modes():
    """Have what this process executes next be root without root's right to write everywhere (CAP_DAC_OVERRIDE)."""
    libc, zero = ctypes.CDLL(None), ctypes.c_ulong(0)
    libc.prctl(24, ctypes.c_ulong(1), zero, zero, zero)  # PR_CAPBSET_DROP: exec gives root all that is left
    libc.prctl(47, ctypes.c_ulong(4), zero, zero, zero)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[2] = sets[5] = 0  # what is inheritable survives exec, too
    libc.capset(header, sets)


@pytest.fixture
def run_read_only(tmp_path):
    """Return what runs Python, with an empty home, on a copy of both packages that it cannot write to."""
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir(mode=0o700)
    for source in (Path(_jit.__file__).parent, Path(minimobile.__file__).parent):
        shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(site.rglob("*"))
    for path in (*before, site):
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {"HOME": str(home), "XDG_CACHE_HOME": "", "PATH": "", "PYTHONPATH": ":".join([str(site), *sys.path])}

    def run(*words):
        done = subprocess.run(
            [sys.executable, *words], check=False, env=environment, cwd=home, capture_output=True, text=True,
            timeout=300, preexec_fn=obey_file_modes if sys.platform == "linux" else None,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    assert run("-c", PROBE).stdout.split() == [str(site / name) for name in ("minimobile", "minimobile_kernels")]
    if list(site.rglob("written")):
        pytest.skip("this user writes where file modes forbid it")
    yield run
    assert sorted(site.rglob("*")) == before
    assert list((home / ".cache" / "minimobile").glob("*.nbc"))
    for path in (site, *before):
        path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX's")
def test_an_installation_that_cannot_be_written_to_works(run_read_only):
    """Nothing is ever written beside the sources: the cache is the user's own."""
    outputs = [run_read_only("-c", PROGRAM).stdout.split() for _ in range(2)]
    assert outputs == [["False", "42", "0"], ["True", "42", "1"]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX's")
def test_the_demo_runs_from_an_installation_that_cannot_be_written_to(run_read_only):
    first, second = (run_read_only("-m", "minimobile", "demo", "--out", "scene.png") for _ in range(2))
    assert "compiling" in first.stderr and second.stderr == ""
    assert re.search(r"^(\d+) of \1 right", first.stdout, re.MULTILINE)


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert _jit.cache_directory() == tmp_path / "minimobile"
    (tmp_path / "minimobile").chmod(0o777)
    assert _jit.cache_directory() not in (tmp_path / "minimobile", tmp_path)


def test_a_home_that_cannot_be_written_gives_a_temporary_directory(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    directory = _jit.cache_directory()
    assert directory.is_dir() and directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["simd.py", "quantized/layout.py"])
def test_an_edit_in_any_kernel_source_changes_the_key(tmp_path, monkeypatch, name):
    before = _jit.source_stamp()
    shutil.copytree(Path(_jit.__file__).parent, tmp_path / "kernels")
    monkeypatch.setattr(_jit, "__file__", str(tmp_path / "kernels" / "_jit.py"))
    assert _jit.source_stamp() == before
    (tmp_path / "kernels" / name).write_bytes(b"# edited")
    assert _jit.source_stamp() != before


@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        (None, ["avx512f", "fma"], (16, 32)),
        (None, ["avx2", "fma"], (8, 16)),
        (None, ["neon"], (4, 32)),
        (None, [], (4, 16)),
        ("haswell", ["avx512f"], (8, 16)),
        ("skylake-avx512", [], (16, 32)),
        ("znver4", [], (16, 32)),
        ("znver2", [], (8, 16)),
        ("generic", ["avx512f"], (4, 16)),
    ],
)
def test_vector_sizes_follow_the_cpu(name, features, expected):
    assert simd.host_vectors(name, features) == expected


def test_vectors_hold_at_least_one_float():
    assert simd.LANES in (4, 8, 16) and np.float32().itemsize == 4
