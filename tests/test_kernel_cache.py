"""The cache of machine code (H34): found again, never trusted when damaged, never kept where others may write."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import minimobile
from minimobile_kernels import kernel_cache
from minimobile_kernels.abi import Array
from minimobile_kernels.native import Entry

PROGRAM = """
import test_kernel_cache as test
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


INT64 = np.dtype(np.int64)


def entry():
    return Entry("test_kernel_cache", "double", Array(INT64), Array(INT64, is_written=True))


def double_21():
    """Return whether the machine code was there, and its result."""
    function = entry()
    was_there = function.is_ready()
    out = np.zeros(1, np.int64)
    function(np.array([21]), out)
    return was_there, int(out[0])


def bare(directory):
    """Return an environment with nothing in it but where to import from, where code is kept and what for."""
    processor = {name: value for name, value in os.environ.items() if name.startswith("NUMBA_CPU_")}
    return {"NUMBA_CACHE_DIR": str(directory), "PATH": "", "PYTHONPATH": ":".join([*sys.path, "."]), **processor}


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_code_is_compiled_once_and_then_taken_from_the_disk(directory):
    assert double_21() == (False, 42)
    assert double_21() == (True, 42)


def test_of_older_sources_the_newest_files_are_kept(directory):
    """A file that is read counts as new; what other entries have is theirs, though the name begins alike."""
    double_21()
    (mine,) = (directory / "minimobile").iterdir()
    others = [mine.with_name(f"{mine.name.rpartition('-')[0]}-{number:024x}.kernel") for number in range(20)]
    others.append(mine.with_name("test_kernel_cache.double_all-0.kernel"))
    for days, path in enumerate([mine, *reversed(others[:20]), others[20]]):
        path.write_bytes(mine.read_bytes())
        os.utime(path, (86_400 * days, 86_400 * days))
    assert double_21() == (True, 42)  # used, so new
    kernel_cache.write(others[19].name, [])  # the oldest, written anew
    left = {path.name for path in mine.parent.iterdir()}
    expected = [mine, others[19], *others[: kernel_cache.KEPT - 2], others[20]]
    assert left == {path.name for path in expected}
    for path in expected:
        os.utime(path, (2**33, 2**33))  # of a clock that was wrong
    kernel_cache.write(others[18].name, [])
    left = {path.name for path in mine.parent.iterdir() if "all" not in path.name}
    assert others[18].name in left and len(left) == kernel_cache.KEPT


def kept_file(directory):
    (file,) = (directory / "minimobile").iterdir()
    return file


def test_one_bit_that_flipped_is_noticed_wherever_it_lies(directory):
    double_21()
    function, file = entry(), kept_file(directory)
    sound = file.read_bytes()
    assert function.is_kept() and len(sound) > 1_000
    for place in [*range(100), *range(100, len(sound), 97), len(sound) - 1]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        assert not function.is_kept(), place
    assert double_21() == (False, 42)
    assert double_21() == (True, 42)


def test_nothing_is_loaded_before_its_checksum_is_right(directory):
    double_21()
    sound = kept_file(directory).read_bytes()
    for content in (b"", b"garbage", bytes(32), bytes(32) + sound[32:], sound[:-1], sound + b"0"):
        kept_file(directory).write_bytes(content)
        assert double_21() == (False, 42)
        assert double_21() == (True, 42)


def test_what_is_kept_is_run_without_numba(directory):
    double_21()
    program = "import sys, test_kernel_cache as test\nprint(*test.double_21(), 'numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=bare(directory), capture_output=True, text=True, check=True
    )
    assert done.stdout == "True 42 False\n"


def test_processes_that_start_at_once(directory):
    command = [sys.executable, "-c", PROGRAM]
    children = [
        subprocess.Popen(command, env=bare(directory), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        out, err = child.communicate(timeout=300)
        assert out.split()[1:2] == ["42"], err
    assert double_21() == (True, 42)


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
    for source in (Path(kernel_cache.__file__).parent, Path(minimobile.__file__).parent):
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
    assert list((home / ".cache" / "minimobile").glob("*.kernel"))
    for path in (site, *before):
        path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX's")
def test_an_installation_that_cannot_be_written_to_works(run_read_only):
    """Nothing is ever written beside the sources: the cache is the user's own."""
    outputs = [run_read_only("-c", PROGRAM).stdout.split() for _ in range(2)]
    assert outputs == [["False", "42"], ["True", "42"]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX's")
def test_the_demo_runs_from_an_installation_that_cannot_be_written_to(run_read_only):
    first, second = (run_read_only("-m", "minimobile", "demo", "--out", "scene.png") for _ in range(2))
    assert "compiling" in first.stderr and second.stderr == ""
    assert re.search(r"^(\d+) of \1 right", first.stdout, re.MULTILINE)


WARNING = (
    r"^the compiled kernels cannot be kept in {} \({}\), so every process compiles them anew; the environment variable "
    r"NUMBA_CACHE_DIR can name another folder$"
)


@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX's")
def test_a_directory_that_others_may_write_to_is_not_used(directory):
    double_21()
    (directory / "minimobile").chmod(0o777)
    before = kept_file(directory).read_bytes()
    with pytest.warns(UserWarning, match=WARNING.format(".*", "other users may write to it")):
        assert double_21() == (False, 42)
    assert kept_file(directory).read_bytes() == before


def test_a_place_that_cannot_be_written_means_kernels_that_are_not_kept(tmp_path, monkeypatch):
    """And no directory anywhere instead, and one sentence for all kernels of a process."""
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(below))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.warns(UserWarning, match=WARNING.format(re.escape(str(below / "minimobile")), ".*")) as caught:
        assert [double_21(), double_21()] == [(False, 42)] * 2
    assert len(caught) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="a limit that POSIX has")
def test_a_disk_that_is_full_leaves_no_file_and_no_directory(tmp_path):
    import resource

    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "new" / "cache"), "PYTHONPATH": ":".join([*sys.path, "."])}
    done = subprocess.run(
        # -B: Python's own bytecode would be cut short, too, and be in the way of whoever comes next
        [sys.executable, "-B", "-c", PROGRAM],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "False 42\n"), done.stderr
    assert done.stderr.count("(File too large), so every process compiles them anew") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["simd.py", "quantized/layout.py"])
def test_an_edit_in_any_kernel_source_changes_the_key(tmp_path, monkeypatch, name):
    before = kernel_cache.source_stamp()
    shutil.copytree(Path(kernel_cache.__file__).parent, tmp_path / "kernels")
    monkeypatch.setattr(kernel_cache, "__file__", str(tmp_path / "kernels" / "kernel_cache.py"))
    assert kernel_cache.source_stamp() == before
    (tmp_path / "kernels" / name).write_bytes(b"# edited")
    assert kernel_cache.source_stamp() != before
