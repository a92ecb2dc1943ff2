"""A part as JSON lines, CSV and Parquet: the same cells back, the same bytes again, and what stands beside it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_runs import digit_run, make_pictures
from PIL import Image

import minimobile as mm
from minimobile.bulk.options import BulkOptions
from minimobile.bulk.tables import ERROR_COUNTERS, ROWS_PER_GROUP, WRITERS
from minimobile.bulk.tasks import COMMON, Column
from minimobile.imaging.pictures import open_image

COLUMNS = (*COMMON, Column("logit", "list<float32>"), Column("label", "list<string>"), Column("mask", "file"))
ROWS: list[dict[str, Any]] = [
    {"path": "a,\n\"b\".png", "sha256": "00", "width": 2, "height": 1, "logit": [0.1, float(np.float32(0.1))],
     "label": ["cat", "é,;"], "mask": b"\x89PNG"},
    {"path": "c.png", "error": "c.png: expected a picture"},
]  # fmt: skip


def test_json_lines(tmp_path: Path) -> None:
    WRITERS["jsonl"](tmp_path / "x", COLUMNS, ROWS, {})
    first, second = map(json.loads, (tmp_path / "x").read_text("ascii").splitlines())
    assert list(first) == [column.name for column in COLUMNS]
    assert first == {**ROWS[0], "error": None, "mask": "iVBORw=="}
    assert second == {**dict.fromkeys(first), **ROWS[1]}


def test_csv_has_one_line_a_row_and_lists_as_json(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "x", COLUMNS, ROWS, {})
    with (tmp_path / "x").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["path"] == ROWS[0]["path"]
    assert json.loads(first["label"]) == ["cat", "é,;"]
    assert second["width"] == second["logit"] == ""


@pytest.mark.crosscheck
def test_parquet_keeps_types_and_says_what_made_it(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    WRITERS["parquet"](tmp_path / "x", COLUMNS, ROWS, {"model": {"sha256": "ab"}})
    table = parquet.read_table(tmp_path / "x")
    found = table.to_pylist()
    assert found[0] == {**ROWS[0], "error": None, "logit": [float(np.float32(0.1))] * 2}
    assert found[1] == {**dict.fromkeys(found[0]), **ROWS[1]}
    assert json.loads(table.schema.metadata[b"model"]) == {"sha256": "ab"}
    many = [{"path": str(number)} for number in range(ROWS_PER_GROUP + 1)]
    WRITERS["parquet"](tmp_path / "y", COLUMNS, many, {})
    assert parquet.read_metadata(tmp_path / "y").num_row_groups == 2
    large = [{"path": "x", "mask": b"0" * 2**23} for _ in range(5)]
    WRITERS["parquet"](tmp_path / "z", COLUMNS, large, {})
    assert parquet.read_metadata(tmp_path / "z").num_row_groups == 2


@pytest.mark.parametrize("kind", ["jsonl", "csv", pytest.param("parquet", marks=pytest.mark.crosscheck)])
def test_labels_of_any_length_and_any_text(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [
        {"path": "\ud800.png", "label": ["half a character: \ud800", 'l"' * 2**17]},
        {"path": "b.png", "error": 'b.png: "no"\n picture'},
    ]
    WRITERS[kind](tmp_path / "x", COLUMNS, rows, {})
    assert ERROR_COUNTERS[kind](tmp_path / "x") == 1
    if kind == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "x")
        assert table["label"].to_pylist()[0][0] == "half a character: \\ud800"


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_same_rows_are_the_same_bytes_and_errors_are_counted(tmp_path: Path, kind: str) -> None:
    for name in ("x", "y"):
        WRITERS[kind](tmp_path / name, COLUMNS, ROWS, {})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert ERROR_COUNTERS[kind](tmp_path / "x") == 1


def test_features_are_cells_of_a_pixel_and_arrays_of_a_map(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", 3)
    (pictures / "001x.png").write_bytes(b"")
    layers = ("pooler", "Conv2d_3_pointwise")
    summary = digit_run([pictures], tmp_path / "out", task="features", layers=layers, rows_per_part=9)
    assert (summary.rows, summary.errors) == (4, 1)
    rows = [json.loads(line) for line in (tmp_path / "out/part-0001-000000.jsonl").read_text().splitlines()]
    maps = np.load(tmp_path / "out" / "_maps/part-0001-000000.Conv2d_3_pointwise.npy")
    model = mm.load("demo:digits")
    for number, row in enumerate(rows):
        if row["error"]:
            assert row["pooler"] is None
            assert np.isnan(maps[number]).all()
            continue
        pixels = model.processor(Image.open(row["path"]), return_tensors="np")["pixel_values"]
        expected = model.features(pixels, layers)
        assert np.array_equal(np.float32(row["pooler"]), expected["pooler"][0])
        assert np.array_equal(maps[number], expected["Conv2d_3_pointwise"][0])
        assert row["Conv2d_3_pointwise"] == "_maps/part-0001-000000.Conv2d_3_pointwise.npy"


def test_masks_are_files_that_hold_the_classes(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", 2)
    digit_run([pictures], tmp_path / "out", model="demo:scenes", task="segment", table_format="csv", overlay=True)
    with (tmp_path / "out/part-0001-000000.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found = mm.segment(row["path"], model="demo:scenes")
            assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["mask"])), found.classes)
            assert json.loads(row["share"]) == [share["share"] for share in found.shares]
            with Image.open(tmp_path / "out" / row["overlay"]) as overlay:
                assert overlay.size == found.overlay().size


def test_objects_are_lists_of_one_length_and_their_boxes(tmp_path: Path) -> None:
    scene = Path(mm.__file__).parent / "demo/scene.png"
    digit_run([scene], tmp_path, model="demo:boxes", task="detect", threshold=0.3)
    (row,) = map(json.loads, (tmp_path / "part-0001-000000.jsonl").read_text().splitlines())
    expected = mm.detect(scene, model="demo:boxes", threshold=0.3)
    assert len(expected) > 3
    for name in ("index", "label", "score"):
        assert row[name] == [found[name] for found in expected]
    assert row["box"] == [list(found["box"].values()) for found in expected]


def test_sizes_boxes_and_masks_of_a_draft_are_those_of_the_whole_picture(tmp_path: Path) -> None:
    """The decoder halves a picture that lies on its side twice; what a row says is in the pixels of the upright one."""
    with Image.open(Path(mm.__file__).parent / "demo/scene.png") as scene:
        upright = scene.convert("RGB").crop((0, 40, 480, 420)).resize((1920, 1520))
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", quality=95, exif=turned)
    path = str(tmp_path / "turned.jpg")
    assert [open_image(path, draft=side).size for side in (300, 1600)] == [(480, 380), (1920, 1520)]
    (row,) = mm.PartRunner(BulkOptions("demo:boxes", "detect", "csv", draft=True)).compute([path])
    assert (row["width"], row["height"]) == (1920, 1520)
    whole = [list(found["box"].values()) for found in mm.detect(path, model="demo:boxes")]
    assert np.abs(np.subtract(row["box"], whole)).max() < 40  # of discs of 500 pixels
    runner = mm.PartRunner(BulkOptions("demo:scenes", "segment", "csv", overlay=True, draft=True))
    (row,) = runner.compute([path])
    with Image.open(io.BytesIO(row["mask"])) as mask, Image.open(io.BytesIO(row["overlay"])) as overlay:
        assert mask.size == (1920, 1520) and overlay.width == 1920 and overlay.height > 1520
        assert (np.asarray(mask) == mm.segment(path, "demo:scenes").classes).mean() > 0.99


@pytest.mark.crosscheck
def test_masks_are_cells_of_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = make_pictures(tmp_path / "pictures", 2)
    digit_run([pictures], tmp_path / "out", model="demo:scenes", task="segment", table_format="parquet")
    table = parquet.read_table(tmp_path / "out")  # a dataset reader passes over the plan and the mark
    assert table.num_rows == 2
    assert table.column("mask")[0].as_py().startswith(b"\x89PNG")
