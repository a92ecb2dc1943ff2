"""Streams: results in the order of the input, few at a time, and what each picture gives by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_runs import make_pictures

import minimobile as mm
from minimobile.errors import InputError
from minimobile.models.stream import WINDOW, in_order


@pytest.mark.parametrize("threads", [1, 3])
def test_order_is_that_of_the_input_whoever_is_done_first(threads: int) -> None:
    turn = threading.Event()

    def work(number: int) -> int:
        if number == 0 and threads > 1:
            turn.wait()  # for the third
        if number == 2:
            turn.set()
        return number * number

    assert list(in_order(work, range(20), threads)) == [number * number for number in range(20)]


def test_few_items_are_taken_before_their_results_are_asked_for() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = in_order(lambda number: number, items(), 2)
    assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert taken <= 5 + 2 * WINDOW
    results.close()  # an endless stream can be left


def test_an_exception_comes_where_its_item_stands() -> None:
    results = in_order(lambda number: 6 // number, [3, 2, 0, 1], 2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_model_gives_each_picture_what_it_gives_it_alone(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, 5)
    (pictures / "000.png").write_bytes(b"no picture")
    paths = sorted(pictures.rglob("*.png"))
    model = mm.load("demo:digits")
    found = list(model.stream(paths, threads=2))
    assert [picture.source for picture in found] == paths
    for path, picture in zip(paths, found, strict=True):
        if path.name == "000.png":
            assert picture.outputs is None
            assert str(path) in str(picture.error)
        else:
            pixels = model.processor(path, return_tensors="np")["pixel_values"]
            assert picture.error is None
            assert np.array_equal(picture.outputs.logits, model(pixels).logits)


def test_a_model_without_a_processor_has_no_stream() -> None:
    model = mm.MobileNetV1Model(mm.MobileNetV1Config(depth_multiplier=0.25))
    with pytest.raises(InputError, match="expected a model with image-processor settings"):
        model.stream(["x.png"])


@pytest.mark.parametrize("threads", [0, -1, float("nan"), "two", True])
def test_a_stream_has_a_number_of_threads(threads: Any) -> None:
    with pytest.raises(InputError, match="threads: expected a whole number from 1 to 1024"):
        mm.load("demo:digits").stream(["x.png"], threads=threads)


@pytest.mark.parametrize("sources", ["photo.jpg", b"GIF", Path("photo.jpg"), None, 3])
def test_a_stream_has_several_pictures(sources: Any) -> None:
    with pytest.raises(InputError, match="stream: expected several pictures, such as a list of paths, got"):
        mm.load("demo:digits").stream(sources)
