"""What a folder of pictures stands for: the same to every command, to the library, and to runs of many pictures."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import minimobile as mm
from minimobile.bulk.entries import list_entries
from minimobile.calibration.pixels import Pictures
from minimobile.imaging.folders import list_pictures

TAKEN = ["2019.png", "2019/summer/_DSC0001.JPG", "2019/winter.d/b.png", "a.jpg"]
PASSED_OVER = [".hidden.png", ".thumbnails/a.png", "2019/._b.png", "_mask/part-0001/a.png", "2019/_x/b.png", "a.txt"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    for name in (*TAKEN, *PASSED_OVER):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (9, 99, 199)).save(photos / name, format="PNG")
    return photos


def test_all_pictures_below_a_folder_and_nothing_hidden(folder: Path) -> None:
    expected = [str(folder / name) for name in TAKEN]
    assert expected == sorted(expected)
    assert [str(path) for path in list_pictures(folder)] == expected
    assert list_entries([folder]) == expected
    assert [str(item) for item in Pictures(mm.load("demo:digits"), folder).items] == expected
    assert [str(path) for path in list_pictures(folder / "2019" / "_x")] == [str(folder / "2019/_x/b.png")]  # named


@pytest.mark.crosscheck
def test_a_bucket_is_listed_as_a_folder_is(folder: Path) -> None:
    assert list_entries([f"file://{folder}"]) == [f"file://{folder / name}" for name in TAKEN]


def test_every_command_goes_below_a_folder(run: Callable[..., Any], folder: Path) -> None:
    code, out, err = run("classify", folder, "--model", "demo:digits", "--format", "json")
    assert (code, err) == (0, "")
    assert [row["image"] for row in json.loads(out)] == [str(folder / name) for name in TAKEN]
    code, out, err = run(
        "quantize", "demo:digits", folder.parent / "x.tflite", "--calibrate", folder, "--format", "json"
    )
    assert json.loads(out)["pictures"] == len(TAKEN)


@pytest.mark.parametrize("place", ["photos/masks", "photos"])
def test_results_are_no_pictures_to_begin_with(run: Callable[..., Any], folder: Path, place: str) -> None:
    out = folder.parent / place
    words = ("segment", folder, "--model", "demo:scenes", "--out", out, "--no-overlay", "--force", "--format", "json")
    first, second = (json.loads(run(*words).out) for _ in range(2))
    assert len(first) == len(TAKEN)
    assert len(second) == (len(TAKEN) if out != folder else 2 * len(TAKEN))


@pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")
def test_links_to_folders_are_followed_but_not_in_a_circle(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    Image.new("RGB", (9, 9)).save(folder.parent / "elsewhere" / "c.png")
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    (folder / "2019" / "circle").symlink_to(folder)
    (folder.parent / "elsewhere" / "back").symlink_to(folder)
    expected = [*(str(folder / name) for name in TAKEN), str(folder / "link" / "c.png")]
    assert [str(path) for path in list_pictures(folder)] == expected
    assert list_entries([folder]) == expected


def test_folders_may_lie_deeper_than_functions_call_one_another(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * 120)
    deepest.mkdir(parents=True)
    (deepest / "a.png").touch()
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(sum(1 for _ in traceback.walk_stack(None)) + 100)
        assert list_pictures(tmp_path) == [deepest / "a.png"]
    finally:
        sys.setrecursionlimit(before)
