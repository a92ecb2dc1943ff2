"""`minimobile demo`: what it reads, what it says, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_it_reads_every_digit_right_and_finds_what_the_scene_shows(run: Run, here: Path) -> None:
    code, out, _ = run("demo", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert len(document["digits"]) >= 6
    assert all(row["prediction"] == row["truth"] for row in document["digits"])
    assert all(0 < row["probability"] <= 1 for row in document["digits"])
    found = document["scene"]["classes"]
    assert found[0]["label"] == "background"
    digits = {row["index"] - 1 for row in found[1:] if row["share"] > 0.005}  # the smallest badge covers 3 %
    assert sorted(digits) == document["scene"]["truth"]
    boxes = document["scene"]["detections"]
    assert sorted(int(found["label"]) for found in boxes) == document["scene"]["truth"]
    for found in boxes:  # round badges: their boxes are nearly square
        box = found["box"]
        assert 0.8 < (box["xmax"] - box["xmin"]) / (box["ymax"] - box["ymin"]) < 1.25
    assert set(document["seconds"]) == {"digits", "scene", "boxes", "total"}
    assert [path.name for path in here.iterdir()] == ["minimobile-demo-overlay.png"]
    with Image.open(document["scene"]["overlay"]) as overlay:
        assert overlay.format == "PNG" and overlay.mode == "RGB"


def test_it_tells_people_what_it_saw_how_long_it_took_and_what_to_run_next(run: Run, here: Path) -> None:
    code, out, _ = run("demo", "--out", "seen.png")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["picture", "truth", "prediction", "probability"] for line in lines)
    assert any(line.startswith("digit_") for line in lines)
    assert "ms per picture" in out
    assert "wrote the scene, tinted and with boxes, to seen.png" in out
    assert lines[-1].strip() == "minimobile classify photo.jpg --model google/mobilenet_v2_1.0_224"
    assert [path.name for path in here.iterdir()] == ["seen.png"]


def test_an_out_in_no_folder(run: Run, here: Path) -> None:
    code, out, err = run("demo", "--out", "no/seen.png")
    assert (code, out) == (1, "")
    assert err == "error: no/seen.png: expected an existing folder to write into, but no is none\n"
