"""Sources as one sorted list: folders, globs, lists, tables and addresses, each entry once."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from bulk_runs import digit_run, make_pictures, make_trouble, read_rows

from minimobile.bulk.entries import describe_entry, is_address, leave_out, list_entries
from minimobile.bulk.options import BulkOptions
from minimobile.bulk.part_runner import PartRunner
from minimobile.bulk.plan import freeze_plan, read_plan, read_plans
from minimobile.errors import FormatError, InputError


def test_a_folder_with_all_below_it_once_and_sorted(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 5)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    found = list_entries([folder, folder / "000.png", f"{folder}/*/*.png"])
    assert found == [f"{folder}/{name}" for name in ("0/003.png", "000.png", "002.png", "004.png", "1/001.png")]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    folder = make_trouble(make_pictures(tmp_path / "pictures", 1))
    names = [os.path.relpath(str(entry), folder) for entry in list_entries([folder])]
    assert "link.png" in names
    assert "dangling.png" in names  # it gets a row that says so
    assert not any(name.startswith("around") for name in names)
    (folder / "itself.png").symlink_to("itself.png")
    assert f"{folder}/itself.png" in list_entries([folder])


def test_what_is_known_is_left_out_without_holding_it() -> None:
    cells = [("t.parquet", "image", row) for row in range(3)]
    entries = ["a.png", "b.png", "c.png", *cells]
    assert list(leave_out(entries, [])) == entries
    assert list(leave_out(entries, [["a.png", "aa.png", cells[1]], ["c.png"]])) == ["b.png", cells[0], cells[2]]


@pytest.mark.crosscheck
def test_pictures_of_a_bucket_have_the_rows_of_files(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    pictures = make_pictures(tmp_path / "pictures", 4)
    for path in pictures.rglob("*.png"):
        memory.pipe(f"/bucket/{path.relative_to(pictures)}", path.read_bytes())
    memory.pipe("/bucket/notes.txt", b"no picture")
    entries = list_entries(["memory://bucket"])
    assert entries == [f"memory://bucket/{name}" for name in ("0/003.png", "000.png", "002.png", "1/001.png")]
    assert list_entries(["memory://bucket/*.png"]) == entries[1:3]
    digit_run([pictures], tmp_path / "here")
    memory.rm("/bucket/002.png")
    runner = PartRunner(BulkOptions("demo:digits", "classify", "jsonl", top=2))
    (part,) = freeze_plan(tmp_path, entries, 5, 1).parts()
    assert runner.run(part, tmp_path).errors == 1
    for here, there in zip(read_rows(tmp_path / "here"), read_rows(tmp_path), strict=True):
        assert there["path"] == here["path"].replace(str(pictures), "memory://bucket")
        if there["path"].endswith("002.png"):
            assert there["error"].startswith("memory://bucket/002.png: cannot be read (FileNotFoundError")
        else:
            assert {**there, "path": ""} == {**here, "path": ""}


@pytest.mark.crosscheck
def test_addresses_go_through_the_workers_like_files(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    pictures = make_pictures(tmp_path / "pictures", 3)
    digit_run([pictures], tmp_path / "here")
    digit_run([f"file://{pictures}"], tmp_path / "there")
    paths = [row["path"] for row in read_rows(tmp_path / "there")]
    assert paths == [f"file://{row['path']}" for row in read_rows(tmp_path / "here")]
    assert [row["sha256"] for row in read_rows(tmp_path / "there")] == [
        row["sha256"] for row in read_rows(tmp_path / "here")
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_listed_is_an_entry(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 2)
    (folder / "1").chmod(0)
    assert list_entries([folder]) == [f"{folder}/000.png", f"{folder}/1"]


def test_lists_on_disk_and_on_standard_input(tmp_path: Path) -> None:
    listed = tmp_path / "some.txt"
    listed.write_bytes(b"b.png\r\na.png\n\n\xff.png\n")
    assert list_entries([listed]) == ["a.png", "b.png", os.fsdecode(b"\xff.png")]
    assert list_entries(["-"], stdin=io.StringIO("b.png\na.png\n")) == ["a.png", "b.png"]


def test_the_mark_that_spreadsheets_and_editors_write_first_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    (tmp_path / "some.csv").write_bytes(b"\xef\xbb\xbfpath,size\r\na.png,1\r\nb.png,2\r\n")
    for name in ("some.txt", "some.csv"):
        assert list_entries([tmp_path / name]) == ["a.png", "b.png"]


def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text(f"path\n{'a' * 2**18}\n")
    with pytest.raises(FormatError, match=r"long.csv: cannot be read as CSV \(field larger than field limit"):
        list_entries([tmp_path / "long.csv"])
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FormatError, match="expected a regular file, found a pipe"):
        list_entries([tmp_path / "pipe.csv"])


def test_tables_by_the_first_column_that_is_known_or_the_one_named(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('number,file,other\n1,b.png,x.png\n2,"a\nb.png",y.png\n')
    assert list_entries([table]) == ["a\nb.png", "b.png"]
    assert list_entries([table], column="other") == ["x.png", "y.png"]
    with pytest.raises(InputError, match="expected a column gone, found 'number', 'file', 'other'; name one"):
        list_entries([table], column="gone")


@pytest.mark.crosscheck
def test_parquet_holds_paths_or_pictures(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"path": ["b.png", "a.png", None]}), tmp_path / "paths.parquet")
    assert list_entries([tmp_path / "paths.parquet"]) == ["a.png", "b.png"]
    parquet.write_table(arrow.table({"image": [{"bytes": b"x"}, {"bytes": b"y"}]}), tmp_path / "cells.parquet")
    cells = list_entries([tmp_path / "cells.parquet"])
    assert cells == [(str(tmp_path / "cells.parquet"), "image", row) for row in (0, 1)]
    assert describe_entry(cells[1]) == f"{tmp_path}/cells.parquet#1"
    parquet.write_table(arrow.table({"path": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(InputError, match="expected column path to hold paths or the bytes of pictures, found int64"):
        list_entries([tmp_path / "numbers.parquet"])
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"damaged.parquet: cannot be read \(ArrowInvalid"):
        list_entries([tmp_path / "damaged.parquet"])


@pytest.mark.crosscheck
def test_pictures_in_tables_are_rows_and_each_group_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = sorted(make_pictures(tmp_path / "pictures", 7).rglob("*.png"))
    contents = [{"bytes": path.read_bytes()} for path in pictures]
    parquet.write_table(arrow.table({"image": [*contents, None]}), tmp_path / "t.parquet", row_group_size=3)
    decoded: list[int] = []
    decode = parquet.ParquetFile.read_row_group

    def count(file: object, group: int, **options: object) -> object:
        decoded.append(group)
        return decode(file, group, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", count)
    runner = PartRunner(BulkOptions("demo:digits", "classify", "jsonl", top=2), threads=2)
    (part,) = freeze_plan(tmp_path, list_entries([tmp_path / "t.parquet"]), 10, 1).parts()
    assert runner.run(part, tmp_path).errors == 1
    assert sorted(decoded) == [0, 1, 2]
    rows = read_rows(tmp_path)
    assert rows[7]["error"].endswith("expected the bytes of a picture in column image, found none")
    assert [row["sha256"] for row in rows[:7]] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]


@pytest.mark.parametrize(
    ("source", "sentence"), [("nowhere", "found nothing of that name"), ("empty", "expected pictures")]
)
def test_a_source_that_names_nothing_is_refused(tmp_path: Path, source: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=sentence):
        list_entries([tmp_path / source])


def test_addresses_and_names_that_are_no_text() -> None:
    assert [is_address(text) for text in ("s3://bucket/x", "gs+x://b", "C://x y", "a/b", "://")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert describe_entry(os.fsdecode(b"a\xff.png")) == "a\\xff.png"


def test_a_plan_is_frozen_by_whoever_comes_first(tmp_path: Path) -> None:
    entries = ["a.png", os.fsdecode(b"\xff\n.png"), ("t.parquet", "image", 3), "z.png"]
    plan = freeze_plan(tmp_path, entries, 3, 1)
    assert freeze_plan(tmp_path, ["other.png"], 1, 1).count == 4
    assert list(plan.entries()) == entries
    assert [(part.name, part.count) for part in plan.parts()] == [("part-0001-000000", 3), ("part-0001-000001", 1)]
    assert [part.entries() for part in plan.parts()] == [entries[:3], entries[3:]]
    assert [plan.number for plan in read_plans(tmp_path)] == [1]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\xff\n", b'{"version":1,"root":"/","rows_per_part":0}\n'])
def test_a_damaged_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "_plan-0001.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="expected a plan of version 1"):
        read_plan(path)


def test_a_plan_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    freeze_plan(tmp_path, ["a.png", "b.png"], 1, 1)
    path = tmp_path / "_plan-0001.jsonl"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match="expected 2 entries, found 1"):
        read_plan(path)
