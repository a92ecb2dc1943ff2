"""Rows on stdout as they come: early, the same document in the end, and columns that later rows may widen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import Run
from PIL import Image

from minimobile.cli import console
from minimobile.cli.options import Format
from minimobile.cli.pictures import Tally, work_through
from minimobile.cli.rows import FIRST, write_rows
from minimobile.errors import InputError

GOOD: list[dict[str, Any]] = [{"image": f"{number}.png", "labels": ["cat", "dog"]} for number in range(3 * FIRST)]


def write(rows: Any, output_format: Format) -> None:
    write_rows(rows, output_format, ("picture", "label", "rank#"), lambda row: zip(row["labels"], (1, 2), strict=True))


@pytest.mark.parametrize("output_format", Format)
def test_a_row_is_there_before_the_next_picture_is_asked_for(
    output_format: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = ""

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal seen
        for count, row in enumerate(GOOD):
            seen += capsys.readouterr().out
            held = FIRST if output_format is Format.TABLE and count < FIRST else 0
            assert seen.count(".png") == (0 if held else count)
            yield row

    write(rows(), output_format)
    assert (seen + capsys.readouterr().out).count(".png") == len(GOOD)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_the_json_is_that_of_the_whole_list(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image": f"{n}\n.png", "values": [1.5, {"a": []}], "bad": float("nan")} for n in range(count)]
    write(iter(rows), Format.JSON)
    streamed = capsys.readouterr().out
    console.write_json(rows)
    assert streamed == capsys.readouterr().out
    assert len(json.loads(streamed)) == count


def test_json_that_was_interrupted_is_no_whole_document(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield GOOD[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(rows(), Format.JSON)
    with pytest.raises(json.JSONDecodeError):
        json.loads(capsys.readouterr().out)


def test_later_rows_widen_a_column_and_nothing_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "a label of more characters than any before it has"
    write([*GOOD, {"image": "wide.png", "labels": [long, "cat"]}], Format.TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["picture", "label", "rank"]
    assert f"wide.png  {long}     1" in lines
    assert sum("picture" in line for line in lines) == 1


def test_rows_that_fit_are_set_as_rich_sets_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    random = Random(3)
    rows = [["".join(random.choices("aé漢\t", k=random.randrange(9))) for _ in range(3)] for _ in range(40)]
    console.write_table(("text", "number#", "more"), rows)
    expected = capsys.readouterr().out
    writer = console.TableWriter(("text", "number#", "more"))
    rows.sort(key=lambda row: -max(map(len, row)))
    writer.write(rows)
    at_once = capsys.readouterr().out
    assert sorted(at_once.splitlines()) == sorted(expected.splitlines())
    writer.write(rows)
    assert capsys.readouterr().out.splitlines() == at_once.splitlines()[2:]


def test_a_terminal_s_width_holds_for_every_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    write([{**row, "labels": ["x" * (10 + count), "y"]} for count, row in enumerate(GOOD)], Format.TABLE)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert out.count("x") == sum(10 + count for count in range(len(GOOD)))


def test_failures_before_the_first_good_picture_wait_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"image": f"bad{number}.png", "error": f"bad{number}.png: broken"} for number in range(2 * FIRST)]
    tally = Tally()
    write(tally.watch(bad), Format.TABLE)
    assert capsys.readouterr().out == ""
    assert tally.settle() == 1
    assert len(capsys.readouterr().err.splitlines()) == len(bad)
    alike = Tally()
    list(alike.watch([{"image": name, "error": "out: the folder cannot be made"} for name in ("1.png", "2.png")]))
    assert alike.settle() == 1
    assert capsys.readouterr().err == "error: out: the folder cannot be made\n"
    tally = Tally()
    write(tally.watch([*bad, GOOD[0]]), Format.TABLE)
    assert tally.settle() == 1
    out, err = capsys.readouterr()
    assert out.count("error: broken") == len(bad)
    assert err == f"error: {len(bad)} of {len(bad) + 1} pictures failed\n"


def test_pictures_are_worked_on_as_their_rows_are_asked_for() -> None:
    begun: list[str] = []

    def work(path: Path) -> dict[str, Any]:
        begun.append(path.name)
        if path.name == "1":
            raise InputError("1: broken")
        return {"name": path.name}

    rows = work_through([Path(str(number)) for number in range(1000)], "working", work)
    assert [next(rows), next(rows)] == [{"image": "0", "name": "0"}, {"image": "1", "error": "1: broken"}]
    rows.close()
    assert len(begun) < 500


def test_a_folder_of_many_is_one_table(
    run: Run, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2 * FIRST + 3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(photos / f"{number:02d}.png")
    code, out, _ = run("classify", photos, "--model", classifier, "--top", "1")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0][-6:] for line in lines[2:]] == [f"{number:02d}.png" for number in range(2 * FIRST + 3)]


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(
    run: Run, classifier: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minimobile.cli.features import _Spool

    def fill_up(spool: _Spool, values: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_Spool, "add", fill_up)
    out = tmp_path / "x.npz"
    code, said, err = run("features", photos, "--model", classifier, "--layer", "0", "--out", out)
    assert (code, said) == (1, "")
    assert err.endswith(f"error: {out}: cannot be written (No space left on device); nothing was changed\n")
    assert not out.exists()
