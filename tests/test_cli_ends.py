"""How a command ends when it is interrupted, its reader has gone, or there is no room for what it prints."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minimobile import classify, cli
from minimobile.cli import console
from minimobile.errors import FormatError
from tests.conftest import Run

posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "minimobile", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_an_interrupt_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minimobile.models.inspection.inspect", interrupt)
    assert run("inspect", "x") == (130, "", "error: interrupted\n")


def run_and_signal(tmp_path: Path, program: str, number: signal.Signals, *words: object) -> tuple[int, str]:
    """Run the command line behind a program that waits where it says so; return exit code and stderr after a signal."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a parent in the background ignores it,
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # and nohup this
        "def wait(*given):\n    print('waiting', flush=True)\n    time.sleep(600)\n" + program
    )
    command = [sys.executable, "-c", "import sitecustomize; from minimobile.__main__ import run; run()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        [*command, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    return process.returncode, err


@posix
def test_control_c_leaves_no_traceback(tmp_path: Path) -> None:
    program = "from minimobile.models import inspection\ninspection.inspect = wait\n"
    assert run_and_signal(tmp_path, program, signal.SIGINT, "inspect", "x") == (130, "error: interrupted\n")


@posix
def test_control_c_while_the_command_line_is_imported_leaves_no_traceback(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, *given):\n"
        "        if name == 'typer':\n"
        "            wait()\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    assert run_and_signal(tmp_path, program, signal.SIGINT) == (130, "error: interrupted\n")


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_command_leaves_no_file(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    program = "import os\nos.fsync = wait\n"
    code, err = run_and_signal(tmp_path, program, number, "convert", "demo:digits", folder / "x.h5")
    assert (code, err) == (128 + number, "")
    assert list(folder.iterdir()) == []


@posix
@pytest.mark.parametrize("words", [["--format", "json"], []])
def test_a_reader_that_has_gone_is_no_error_to_shout_about(classifier: Path, words: list[str]) -> None:
    with start("inspect", classifier, *words) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=300)
    assert err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--format", "json"], []])
def test_a_full_disk_behind_stdout_is_said_once(classifier: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "minimobile", "inspect", str(classifier), *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", [lambda: console.TableWriter(["a"]).write([["b"]]), lambda: console.write_text("a")])
def test_rows_and_lines_name_standard_output_too(monkeypatch: pytest.MonkeyPatch, write: Callable[[], None]) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left on device: 'standard output'"):
        write()


def test_standard_output_is_not_blamed_for_another_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("minimobile.models.inspection.inspect", fail)
    assert run("inspect", "x") == (1, "", "error: No space left on device\n")


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["--version"]) == 0
    assert cli.main(["inspect", "missing"]) == 1
    for stream in (sys.stdout, sys.stderr):
        assert stream is not None
        stream.close()


def test_python_m_minimobile_passes_the_exit_code_on() -> None:
    with start("classify") as process:
        _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert err.startswith("error: Missing argument")


@pytest.mark.parametrize(
    "words",
    [
        ("segment", "x.png", "--model", "demo:scenes", "--out", ""),
        ("run", "x", "--task", "classify", "--model", "demo:digits", "--out", ""),
        ("convert", "demo:digits", ""),
        ("classify", "", "--model", "demo:digits"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and "expected a path, got an empty text" in err


@pytest.mark.parametrize("words", [("classify", "x.png", "--model", ""), ("check", "", "x.png")])
def test_an_empty_name_is_not_the_default_model(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "") and "source: expected a path, a hub id or one of demo:digits" in err
    with pytest.raises(FormatError, match="source: expected a path, a hub id or one of demo:digits"):
        classify("x.png", "")
