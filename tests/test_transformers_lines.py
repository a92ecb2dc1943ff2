"""Lines that users of transformers type, the documentation's first: each is run with transformers and with minimobile.

They stand in transformers_lines.txt, in sessions. A line gives the same with both, or ends in `# differs: NAME`, and
then NAME is a row of docs/transformers.md and the results do differ.
"""

from __future__ import annotations

import builtins
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import twins
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "transformers.md"
MARK = re.compile(r"\s*# differs: (.+)$")
CHECKPOINTS = {  # what stands in for the hub's repositories
    "google/mobilenet_v1_0.75_192": "mobilenet_v1_0.25_128",
    "google/mobilenet_v2_1.0_224": "mobilenet_v2_1.0_224",
    "google/deeplabv3_mobilenet_v2_1.0_513": "deeplabv3_mobilenet_v2_0.5_257",
}

FILE = (ROOT / "tests" / "transformers_lines.txt").read_text(encoding="utf-8")
SESSIONS = {
    title: lines.strip().splitlines()
    for title, _, lines in (part.partition("\n") for part in re.split(r"^== ", FILE, flags=re.MULTILINE)[1:])
}
DIFFERING = {mark.group(1) for lines in SESSIONS.values() for line in lines if (mark := MARK.search(line))}


def rows_of_the_table() -> dict[str, list[str]]:
    """Return the rows of the page's table by their names."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("| "): row for row in cells[1:]}


def test_every_row_has_a_reason_and_every_difference_a_row() -> None:
    rows = rows_of_the_table()
    assert sum(map(len, SESSIONS.values())) >= 100 and len(rows) >= 10
    assert all(len(row) == 4 and all(row) for row in rows.values()), [row for row in rows.values() if len(row) != 4]
    assert rows.keys() >= DIFFERING


class Failure:
    """An exception, as the built-in class that an `except` clause would name."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.kind = next(each for each in type(error).__mro__ if getattr(builtins, each.__name__, None) is each)


def run_line(line: str, names: dict[str, Any]) -> Any:
    """Return what a line gives, or None for a statement."""
    try:
        try:
            code = compile(line, "<line>", "eval")
        except SyntaxError:
            exec(compile(line, "<line>", "exec"), names)
            return None
        return eval(code, names)
    except Exception as error:
        return Failure(error)


def is_same(ours: Any, theirs: Any) -> bool:
    """Say whether two results are the same to who reads them: arrays as tensors, and to float32's rounding."""
    if isinstance(theirs, Failure):
        return isinstance(ours, Failure) and isinstance(ours.error, theirs.kind)
    if isinstance(ours, Failure):
        return False
    if hasattr(theirs, "detach"):
        theirs = theirs.detach().numpy()
        is_array = isinstance(ours, np.ndarray | np.generic) or hasattr(ours, "detach")
        ours = np.asarray(ours)
        limit = 2e-5 * np.abs(theirs).max()  # of two engines in float32, after up to 55 layers
        return is_array and ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=limit)
    if isinstance(theirs, np.ndarray):
        return isinstance(ours, np.ndarray) and ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    if isinstance(theirs, tuple | list):
        return len(ours) == len(theirs) and all(is_same(*pair) for pair in zip(ours, theirs, strict=True))
    if isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(is_same(ours[key], theirs[key]) for key in theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)


@pytest.mark.crosscheck
@pytest.mark.parametrize("session", SESSIONS)
def test_lines_give_what_they_give_with_transformers(
    session: str, test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, transformers = twins.import_torch()
    import json

    import torch

    import minimobile

    shutil.copy(test_data / "images" / "cats_coco_39769.png", tmp_path / "cats.png")
    shutil.copy(test_data / "images" / "bird_segmentation.bmp", tmp_path / "bird.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / "cats.png").save(tmp_path / "turned.jpg", exif=exif)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = {}
    for library in (transformers, minimobile):
        processor = library.MobileNetV2ImageProcessorPil.from_pretrained(
            test_data / "models" / "huggingface" / "mobilenet_v2_1.0_224"
        )
        pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 96, 96)).astype(np.float32))
        names[library.__name__] = {
            "np": np, "Image": Image, "Path": Path, "json": json, "pixels": pixels, "on_pil": processor
        }  # fmt: skip
        (tmp_path / library.__name__).mkdir()
        for name in ("cats.png", "bird.bmp", "turned.jpg"):
            shutil.copy(tmp_path / name, tmp_path / library.__name__)
    wrong = []
    for line in SESSIONS[session]:
        mark = MARK.search(line)
        typed = MARK.sub("", line)
        for repository, folder in CHECKPOINTS.items():
            typed = typed.replace(repository, str(test_data / "models" / "huggingface" / folder))
        found = {}
        for library, known in names.items():
            monkeypatch.chdir(tmp_path / library)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[library] = run_line(re.sub(r"^from transformers ", f"from {library} ", typed), known)
        if is_same(found["minimobile"], found["transformers"]) == bool(mark):
            shown = [
                repr(getattr(found[library], "error", found[library]))[:300]
                for library in ("transformers", "minimobile")
            ]
            wrong.append(f"{line}\n    transformers: {shown[0]}\n    minimobile:   {shown[1]}")
    assert not wrong, "\n".join(wrong)
