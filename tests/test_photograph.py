"""Photographs from their files to their classes: figures of every one, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile.comparison.photograph import PhotographTimes, compare_photographs
from tools.bench_tables import photograph_table


def test_every_photograph_counts_the_same() -> None:
    """The fastest is one runtime for the ratio of means, and whoever it is on each photograph for the median."""
    whole = {"minimobile": [2.0, 2.0, 5.0], "a": [4.0, 4.0, 7.0], "b": [2.5, 10.0, 4.0]}
    found = PhotographTimes(whole, [1.0, 1.0, 2.5], [0.5, 0.5, 1.25])
    assert found.means == {"minimobile": 3.0, "a": 5.0, "b": 5.5}
    assert (found.ratio, found.median_ratio) == (0.6, 0.8)
    assert found.rest == pytest.approx(0.75)
    assert photograph_table({("model", 2): found}).splitlines()[2:] == [
        "| model | 2 | 3.00 | 5.00 | 5.50 | 0.60 | 0.80 | 1.50 | 0.75 | 0.75 |"
    ]


@pytest.mark.parametrize("is_quantized", [False, True])
def test_photographs_are_timed_in_parts(is_quantized: bool, tmp_path: Path) -> None:
    paths = [tmp_path / "first.jpg", tmp_path / "second.jpg"]
    for path in paths:
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
    source = "demo:digits"
    if is_quantized:
        source = str(tmp_path / "digits.tflite")
        mm.quantize("demo:digits", [Image.open(path) for path in paths]).save(source)
    found = compare_photographs(source, paths, [], 1, seconds=0)
    assert set(found.whole) == {"minimobile"}
    parts = (found.whole["minimobile"], found.decoding, found.network)
    assert all(len(times) == len(paths) and min(times) > 0 for times in parts)
    assert all(whole > decoding + network for whole, decoding, network in zip(*parts, strict=True))  # of one call
