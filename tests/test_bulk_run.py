"""Runs over folders: every entry a row, resumed, sharded and killed, and the same bytes whatever happened."""

from __future__ import annotations

import csv
import functools
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_runs import (
    KILLER,
    MODEL,
    compute_here,
    crashing_command,
    digit_run,
    make_pictures,
    make_trouble,
    read_rows,
    start_run,
)

import minimobile as mm
from minimobile.bulk import files, workers
from minimobile.bulk.options import BulkOptions
from minimobile.bulk.plan import Part
from minimobile.bulk.run import SUCCESS
from minimobile.errors import FormatError, InputError, UnavailableError
from tools.soak import hash_tables, kill_until_done


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trouble(make_pictures(tmp_path_factory.mktemp("pictures"), 12))


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the table of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    digit_run([pictures], out)
    return out


def test_every_picture_is_a_row_that_says_what_classify_says(pictures: Path, whole: Path) -> None:
    rows = read_rows(whole)
    assert len(rows) == 12 + 1 + 8  # the link, and what is wrong
    assert len({row["path"] for row in rows}) == len(rows)
    for row in rows:
        assert row.keys() == {
            "path", "sha256", "error", "width", "height", "index", "label", "probability", "logit",
        }  # fmt: skip
        if row["error"] is None:
            expected = mm.classify(row["path"], model=MODEL, top=2)
            assert row["label"] == [found["label"] for found in expected]
            assert row["logit"] == [found["logit"] for found in expected]
            assert row["probability"] == [found["probability"] for found in expected]


def test_what_cannot_be_read_has_its_sentence(pictures: Path, whole: Path) -> None:
    errors = {Path(row["path"]).name: row["error"] for row in read_rows(whole) if row["error"]}
    expected = {
        "bomb.png": "more pixels", "dangling.png": "the link points to a file that is not there",
        "empty.png": "an empty file", "inside\nit.png": "truncated or damaged", "pipe.png": "found a pipe",
        "text.jpg": "got something else", "truncated.png": "truncated or damaged", "\\xff\\xfe.png": "something else",
    }  # fmt: skip
    assert errors.keys() == expected.keys()
    for name, part in expected.items():
        assert part in errors[name]
        assert errors[name].startswith(str(pictures))
        assert "image of" not in errors[name]


@pytest.mark.parametrize("options", [{"jobs": 5}], ids=str)
def test_the_bytes_are_the_same_for_any_number_of_jobs(
    pictures: Path, whole: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    digit_run([pictures], tmp_path / "out", **options)
    assert hash_tables(tmp_path / "out") == hash_tables(whole)


def test_shards_of_one_plan_make_the_same_table(pictures: Path, whole: Path, tmp_path: Path) -> None:
    first = digit_run([pictures], tmp_path, shard=(0, 2), engine=compute_here)
    assert not first.is_complete
    assert not (tmp_path / SUCCESS).exists()
    second = digit_run([pictures], tmp_path, shard=(1, 2))
    assert second.is_complete
    assert hash_tables(tmp_path) == hash_tables(whole)


def test_a_run_begun_again_does_what_is_missing(pictures: Path, whole: Path, tmp_path: Path) -> None:
    digit_run([pictures], tmp_path, engine=compute_here)
    kept = tmp_path / "part-0001-000000.jsonl"
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "part-0001-000001.jsonl").unlink()
    again = digit_run([pictures], tmp_path, engine=compute_here)
    assert (again.computed, again.rows, again.errors) == (5, 21, 8)
    assert kept.stat().st_mtime_ns == stamp
    assert hash_tables(tmp_path) == hash_tables(whole)
    assert digit_run([pictures], tmp_path, engine=compute_here).computed == 0


def test_what_appears_later_makes_a_plan_of_its_own(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", 3)
    digit_run([pictures], tmp_path / "out", engine=compute_here)
    before = hash_tables(tmp_path / "out")
    make_pictures(pictures, 5)
    later = digit_run([pictures], tmp_path / "out", engine=compute_here)
    assert (later.computed, later.rows, later.is_complete) == (2, 5, True)
    after = hash_tables(tmp_path / "out")
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"_plan-0002.jsonl", "part-0002-000000.jsonl"}


def test_a_picture_that_is_gone_or_changed_after_planning(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", 4)
    digit_run([pictures], tmp_path / "out", rows_per_part=2, engine=compute_here, shard=(0, 2))
    done = {row["path"] for row in read_rows(tmp_path / "out")}
    gone, changed = sorted(path for path in pictures.rglob("*.png") if str(path) not in done)
    gone.unlink()
    changed.write_bytes((pictures / "000.png").read_bytes() + b"more")
    summary = digit_run([pictures], tmp_path / "out", rows_per_part=2, engine=compute_here)
    assert (summary.rows, summary.errors) == (4, 1)
    rows = {row["path"]: row for row in read_rows(tmp_path / "out")}
    assert "no such file" in rows[str(gone)]["error"]
    assert rows[str(changed)]["sha256"] == hashlib.sha256(changed.read_bytes()).hexdigest()


def test_a_clock_that_is_set_back_changes_nothing(
    pictures: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digit_run([pictures], tmp_path, shard=(0, 2))
    future = time.time() + 1e9
    for path in tmp_path.iterdir():
        os.utime(path, (future, future))  # as they are after a run by a clock that was fast
    past = "import time; time.time = lambda: 0.0; from minimobile.bulk import worker; worker.main()"
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", past))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert digit_run([pictures], tmp_path).is_complete
    assert hash_tables(tmp_path) == hash_tables(whole)


@pytest.mark.parametrize("table_format", ["jsonl", "csv", pytest.param("parquet", marks=pytest.mark.crosscheck)])
def test_names_with_newlines_and_bytes_that_are_no_text(tmp_path: Path, table_format: str) -> None:
    names = [b"a\nb.png", b"\xff\xfe.png", b'c,"d".png', "\u00e9\u6f22.png".encode(), b" .png", b"-x.png"]
    content = (make_pictures(tmp_path / "made", 1) / "000.png").read_bytes()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(content)
    summary = digit_run([folder], tmp_path / "out", table_format=table_format, engine=compute_here)
    assert (summary.rows, summary.errors) == (len(names), 0)
    expected = {f"{folder}/{name.decode('utf-8', 'backslashreplace')}" for name in names}
    if table_format == "jsonl":
        found = {row["path"] for row in read_rows(tmp_path / "out")}
    elif table_format == "csv":
        tables = [path.open(encoding="utf-8", newline="") for path in (tmp_path / "out").glob("part-*.csv")]
        found = {row["path"] for table in tables for row in csv.DictReader(table)}
        for table in tables:
            table.close()
    else:
        found = set(pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out")["path"].to_pylist())
    assert found == expected


def test_an_engine_of_one_s_own_gets_the_parts_that_are_missing(pictures: Path, whole: Path, tmp_path: Path) -> None:
    digit_run([pictures], tmp_path, shard=(0, 2), engine=compute_here)
    given: list[str] = []

    def compute(options: Any, parts: Any, folder: Path, jobs: int, hear: Any) -> list[mm.PartReport]:
        given.extend(part.name for part in parts)
        runner = mm.PartRunner(options)
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        (folder / f"_{parts[0].name}.jsonl.{files.host_name()}-{int(ended.stdout)}.tmp").touch()
        reports = [runner.run(part, folder) for part in parts]
        written = {path: path.stat().st_ino for path in folder.glob("part-*")}
        assert [runner.run(part, folder) for part in parts] == reports
        assert {path: path.stat().st_ino for path in folder.glob("part-*")} == written  # left as they are
        return reports

    assert digit_run([pictures], tmp_path, engine=compute).is_complete
    assert given == ["part-0001-000001", "part-0001-000003"]
    assert hash_tables(tmp_path) == hash_tables(whole)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"top": 3}, "options top was 2 and is 3"), ({"model": "demo:scenes", "task": "segment"}, "model class was"),
     ({"table_format": "csv"}, "options format was 'jsonl' and is 'csv'")],
)  # fmt: skip
def test_another_run_is_refused_and_told_apart(
    pictures: Path, whole: Path, options: dict[str, Any], sentence: str
) -> None:
    before = hash_tables(whole)
    with pytest.raises(InputError, match=sentence):
        digit_run([pictures], whole, **options)
    assert hash_tables(whole) == before


def test_a_picture_that_ends_its_worker_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = make_pictures(tmp_path / "pictures", 6)
    (pictures / "002x.png").write_bytes(KILLER)
    monkeypatch.setattr(workers, "COMMAND", crashing_command())
    summary = digit_run([pictures], tmp_path / "out")
    assert (summary.rows, summary.errors) == (7, 1)
    (row,) = [row for row in read_rows(tmp_path / "out") if row["error"]]
    assert row["error"] == f"{row['path']}: expected a picture, found what ends the process that reads it (signal 11)"
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_part_at_which_every_worker_ends_without_a_word_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no memory for the model: no picture is to blame, and nobody tries for ever."""
    worker, tries = workers.Worker(BulkOptions(MODEL, "classify"), 1, tmp_path), []
    monkeypatch.setattr(worker, "_ask", lambda part, is_careful, killers: iter(tries.append(is_careful) or ()))
    with pytest.raises(FormatError, match=r"^part-7: expected a worker to compute it, but each of them ended \(no pro"):
        worker.run(Part("part-7", "", 0, 1, ""), lambda part, rows: None)
    assert tries == [False, *[True] * 2 * workers.STRIKES]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find a run's workers")
@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 50), marks=pytest.mark.slow)], ids=str)
def test_a_run_that_is_killed_ends_as_if_it_had_not(
    seed: int | range, pictures: Path, whole: Path, tmp_path: Path
) -> None:
    expected = hash_tables(whole)
    for number in [seed] if isinstance(seed, int) else seed:
        out = tmp_path / str(number)
        kill_until_done(number, functools.partial(start_run, pictures, out))
        left = [path for path in out.rglob("*.tmp") if not files.is_alive(int(path.stem.rpartition("-")[2]))]
        assert left == []
        assert hash_tables(out) == expected, number


def test_what_a_process_that_is_alive_writes_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "is_alive", lambda process: process == 7)
    for name in (f"{files.host_name()}-7", f"{files.host_name()}-8", "elsewhere-8"):
        (tmp_path / f"_part-0001-000000.jsonl.{name}.tmp").touch()
    files.clear_leftovers(tmp_path)
    kept = {path.name.removeprefix("_part-0001-000000.jsonl.") for path in tmp_path.iterdir()}
    assert kept == {f"{files.host_name()}-7.tmp", "elsewhere-8.tmp"}


def test_two_runs_at_once_make_one_table(pictures: Path, whole: Path, tmp_path: Path) -> None:
    processes = [start_run(pictures, tmp_path / "out") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert hash_tables(tmp_path / "out") == hash_tables(whole)


def test_two_shards_at_once_make_one_table(pictures: Path, whole: Path, tmp_path: Path) -> None:
    processes = [start_run(pictures, tmp_path / "out", (index, 2)) for index in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert hash_tables(tmp_path / "out") == hash_tables(whole)


def test_a_folder_that_another_run_has_put_there_is_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while the old files are deleted would leave a finished table without its masks."""
    path = tmp_path / "_mask" / "part-0001-000000"
    was_there = []
    remove = files.shutil.rmtree

    def watch(folder: Path, **options: object) -> None:
        was_there.append(path.is_dir())
        remove(folder, **options)

    monkeypatch.setattr(files.shutil, "rmtree", watch)
    for content in (b"one", b"two"):
        with files.replace_whole(path) as temporary:
            temporary.mkdir()
            (temporary / "000000.png").write_bytes(content)
    assert was_there == [True]
    assert [file.read_bytes() for file in path.iterdir()] == [b"two"]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_full_disk_is_one_sentence_and_leaves_whole_parts(
    pictures: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import errno, os
from minimobile.bulk import tables, worker
written = tables.WRITERS["jsonl"]
def write(path, columns, rows, facts):
    if "000002" in path.name:
        raise OSError(errno.ENOSPC, "No space left on device")
    written(path, columns, rows, facts)
tables.WRITERS["jsonl"] = write
worker.main()
"""
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", code))
    with pytest.raises(FormatError, match=r"part-0001-000002.jsonl: cannot be written \(No space left"):
        digit_run([pictures], tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / SUCCESS).exists()
    monkeypatch.undo()
    digit_run([pictures], tmp_path)
    assert hash_tables(tmp_path) == hash_tables(whole)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task": "dream"}, "task: expected one of classify, features, segment, detect"),
        ({"task": "features"}, "layer: expected at least one"),
        ({"task": "features", "layers": ["layer.99"]}, "layer.99"),
        ({"task": "segment"}, "expected a model for the task segment"),
        ({"shard": (2, 2)}, "shard: expected"),
        ({"jobs": 0}, "jobs: expected"),
        ({"rows_per_part": "5"}, "rows_per_part: expected a whole number"),
        ({"top": "5"}, "top: expected a whole number"),
        ({"num_threads": 2}, "num_threads: expected none, for jobs says it"),
        ({"state_dict": {"weight": np.zeros(3)}}, "state_dict: expected a value that JSON can hold"),
        ({"engine": "abacus"}, "engine: expected one of local, ray"),
        ({"model": "nowhere.h5"}, "nowhere.h5"),
    ],
)
def test_wrong_options_are_one_sentence_and_no_table(
    pictures: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((InputError, mm.UnknownLayerError, FormatError), match=sentence):
        digit_run([pictures], tmp_path / "out", **options)
    assert not list(tmp_path.rglob("part-*"))


def test_a_token_of_the_hub_is_written_nowhere(pictures: Path, whole: Path, tmp_path: Path) -> None:
    digit_run([pictures], tmp_path / "out", token="hf_secret", cache_dir=tmp_path)
    texts = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    assert not any(b"hf_secret" in text for text in texts)
    assert digit_run([pictures], tmp_path / "out").is_complete  # it is the same run without
    assert hash_tables(tmp_path / "out") == hash_tables(whole)


def test_a_package_that_is_missing_is_named(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnavailableError, match=r"minimobile\[ray\]"):
        digit_run([pictures], tmp_path / "a", engine="ray")
    with pytest.raises(UnavailableError, match=r"minimobile\[bulk\].*jsonl or csv"):
        digit_run([pictures], tmp_path / "b", table_format="parquet")


def test_an_error_names_the_picture_once_and_not_where_the_run_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures(tmp_path / "pictures", 1)
    (tmp_path / "pictures/dangling.png").symlink_to("gone.png")
    monkeypatch.chdir(tmp_path)
    digit_run(["pictures"], tmp_path / "out")
    (error,) = [row["error"] for row in read_rows(tmp_path / "out") if row["error"]]
    assert error.startswith("pictures/dangling.png: no such file or directory")
    assert str(tmp_path) not in error
