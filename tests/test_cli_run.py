"""`minimobile run`: a folder to a table, its exit codes, its words on the way, and an interruption."""

from __future__ import annotations

import importlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bulk_runs import make_pictures
from conftest import Run

from minimobile.bulk.files import is_alive
from tools.soak import find_workers


def test_a_folder_becomes_a_table_and_the_second_run_has_nothing_to_do(run: Run, tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 4)
    words = ["run", tmp_path / "pictures", "--task", "classify", "--model", "demo:digits", "--format", "jsonl"]
    out = tmp_path / "out"
    first = run(*words, "--out", out)
    assert (first.code, first.err) == (0, "")
    assert first.out == f"{out}: 4 rows in 1 part, 0 with an error; 4 computed now\n"
    assert run(*words, "--out", out).out == f"{out}: 4 rows in 1 part, 0 with an error; 0 computed now\n"
    (row, *_) = map(json.loads, (out / "part-0001-000000.jsonl").read_text().splitlines())
    assert row["label"][0] in "0123456789"


def test_a_bad_picture_is_exit_code_1_the_first_time_and_the_second(run: Run, tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 1)
    (tmp_path / "pictures/empty.png").touch()
    words = ["run", tmp_path / "pictures", "--task", "classify", "--model", "demo:digits", "--format", "csv"]
    for _ in range(2):
        assert run(*words, "--out", tmp_path / "out").code == 1


@pytest.mark.parametrize(
    "words", [["--shard", "2/2"], ["--shard", "x"], ["--task", "dream"], ["--jobs", "0"], ["--format", "xls"]]
)
def test_wrong_usage_is_exit_code_2(run: Run, tmp_path: Path, words: list[str]) -> None:
    given = ["run", tmp_path, "--task", "classify", "--model", "demo:digits", "--out", tmp_path / "out"]
    outcome = run(*given, *words)
    assert outcome.code == 2
    assert "Value error" not in outcome.err


@pytest.mark.parametrize(
    "words", [["nowhere"], [".", "--format", "parquet"], [".", "--engine", "ray"], ["empty"], ["-"]]
)
def test_what_cannot_begin_leaves_no_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("sys.stdin", io.StringIO())  # an empty list
    for name in ("pyarrow", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    given = ["run", *words, "--task", "classify", "--model", "demo:digits", "--out", "out"]
    assert run(*given, *([] if "--format" in words else ["--format", "csv"])).code == 1
    assert not (tmp_path / "out").exists()


def test_a_closed_standard_input_is_a_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # what Python makes of `<&-`
    outcome = run(
        "run", "-", "--task", "classify", "--model", "demo:digits", "--format", "csv", "--out", tmp_path / "x"
    )
    assert (outcome.code, outcome.err) == (
        1,
        "error: -: expected a list of pictures on standard input, but that is closed\n",
    )


def test_without_a_terminal_there_is_one_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minimobile.bulk.run import Progress

    command = importlib.import_module("minimobile.cli.run")

    now = 0.0
    monkeypatch.setattr(command.time, "monotonic", lambda: now)
    lines = command._Lines()
    for second in range(150):
        now = float(second)
        lines(Progress(rows=10 * second, of_rows=6000, errors=second // 100))
    assert capsys.readouterr().err.splitlines() == [
        "600 of 6000 pictures, 10 a second, about 9 minutes left, 0 errors",
        "1200 of 6000 pictures, 10 a second, about 8 minutes left, 1 errors",
    ]


STOPPING = """
import signal, sys
from minimobile.__main__ import run
from minimobile.bulk import workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it

signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it

worker = '''
import time
from minimobile.bulk import tables, worker
written = tables.WRITERS["jsonl"]
def write(path, *given):
    written(path, *given)
    if "000003" <= path.name.partition(".")[0][-6:]:
        time.sleep(600)
tables.WRITERS["jsonl"] = write
worker.main()
'''
workers.COMMAND = (sys.executable, "-c", worker)
run()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_whole_parts_and_no_process(tmp_path: Path, number: int, code: int) -> None:
    """The workers write three parts and are held up in the next ones, which are not whole."""
    make_pictures(tmp_path / "pictures", 8)
    out = tmp_path / "out"
    words = ["run", str(tmp_path / "pictures"), "--task", "classify", "--model", "demo:digits", "--format", "jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING, *words, "--out", str(out), "--rows-per-part", "1", "--jobs", "2"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not (len(list(out.glob("part-*"))) == 3 and list(out.glob("_part-*.tmp"))):
        time.sleep(0.01)
    workers = find_workers(process.pid)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == code
    assert said == ("error: interrupted\n" if code == 130 else "")
    assert workers
    assert not [worker for worker in workers if is_alive(worker)]
    assert sorted(path.stem for path in out.glob("part-*")) == [f"part-0001-{index:06d}" for index in range(3)]
    assert not list(out.rglob("*.tmp"))
