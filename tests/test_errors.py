"""What callers get wrong everywhere alike: names that are no paths, and more than memory holds. Always our sentence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimobile as mm
from minimobile.errors import InputError, MinimobileError, MissingError

TAKE_A_PATH: dict[str, Callable[[Any], object]] = {
    "load": mm.load,
    "AutoConfig": mm.AutoConfig.from_pretrained,
    "AutoImageProcessor": mm.AutoImageProcessor.from_pretrained,
    "classify with": lambda path: mm.classify(np.zeros((8, 8, 3), np.uint8), path),
    "classify": lambda path: mm.classify(path, "demo:digits"),
    "check": lambda path: mm.check(path, np.zeros((8, 8, 3), np.uint8), against="reference"),
    "convert from": lambda path: mm.convert(path, "x.h5"),
    "convert to": lambda path: mm.convert("demo:digits", path),
    "save": lambda path: mm.load("demo:digits").save(path),
    "save_pretrained": lambda path: mm.load("demo:digits").save_pretrained(path),
    "config.save_pretrained": lambda path: mm.MobileNetV1Config().save_pretrained(path),
    "config.to_json_file": lambda path: mm.MobileNetV1Config().to_json_file(path),
    "config.from_json_file": mm.MobileNetV1Config.from_json_file,
    "processor.to_json_file": lambda path: mm.MobileNetV1ImageProcessor().to_json_file(path),
    "processor.save_pretrained": lambda path: mm.MobileNetV1ImageProcessor().save_pretrained(path),
}
NO_PATHS = {
    "of no user": "~nobody-of-that-name/x",
    "NUL": "a\0b",
    "long": "x" * 5000,
    "empty": "",
    "None": None,
    "number": 3,
    "bytes": b"x",
    "list": [],
}


@pytest.mark.parametrize("kind", NO_PATHS)
@pytest.mark.parametrize("name", TAKE_A_PATH)
def test_what_is_no_path_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    if (name, kind) == ("classify with", "None"):
        return  # None is the default model there
    with pytest.raises(MinimobileError) as caught:
        TAKE_A_PATH[name](NO_PATHS[kind])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


OTHER_TYPES: dict[str, tuple[Callable[[], object], str]] = {
    "anchors": (lambda: mm.load("demo:boxes").anchors(None, 64), "^height: expected a whole number of 1 to 65536"),
    "anchors of 0": (lambda: mm.load("demo:boxes").anchors(64, 0), "^width: expected a whole number .*got 0"),
    "seed": (lambda: mm.MobileNetV1Model(mm.MobileNetV1Config(), seed=3.5), "^seed: expected a whole number"),
    "seed below 0": (lambda: mm.MobileNetV1Model(mm.MobileNetV1Config(), seed=-1), "^seed: expected a whole number"),
    "model_kwargs": (lambda: mm.pipeline("image-classification", model_kwargs=3.5), "^model_kwargs: expected"),
    "pipeline": (lambda: mm.ImageClassificationPipeline(None), "^model: expected a model, got NoneType"),
}


@pytest.mark.parametrize("case", OTHER_TYPES)
def test_an_argument_of_another_type_is_one_sentence(case: str) -> None:
    call, match = OTHER_TYPES[case]
    with pytest.raises(InputError, match=match):
        call()


def test_what_a_file_calls_its_parts_is_one_printable_line() -> None:
    for error in (MinimobileError, InputError, MissingError):
        found = error("the name 'a\nb\x1b[31m\udcff' of a Käse")
        assert str(found) == str(pickle.loads(pickle.dumps(found))) == r"the name 'a\nb\x1b[31m\udcff' of a Käse"


def test_a_home_that_there_is_stands_for_the_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    mm.load("demo:digits").save("~/x.h5")
    mm.load("~/x.h5").save_pretrained("~/y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5", "y"]
    with pytest.raises(MissingError, match="there is no user whose home ~ could stand for"):
        mm.load("~nobody-of-that-name/x")


HUGE = np.broadcast_to(np.float32(0), (1, 3, 2**28, 2**28))  # more than the address space of any machine


@pytest.mark.parametrize("call", ["__call__", "features", "trace", "explain"])
@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_pixels_beyond_all_memory_are_one_sentence(engine: str, call: str) -> None:
    model: Any = mm.load("demo:digits", engine=engine)
    more = {"features": (["layer.1"],), "explain": ("layer.1", (0, 0, 0))}.get(call, ())
    with pytest.raises(InputError, match=r"^pixel_values: needs more memory than there is \(Unable to allocate "):
        getattr(model, call)(HUGE, *more)


def test_pictures_and_labels_beyond_all_memory_are_one_sentence() -> None:
    model: Any = mm.load("demo:scenes")
    with pytest.raises(InputError, match=r"^labels: needs more memory than there is"):
        model(np.zeros((1, 3, 32, 32), np.float32), labels=np.broadcast_to(np.int32(0), (1, 2**29, 2**29)))
    with pytest.raises(InputError, match=r"^images: needs more memory than there is"):
        mm.load("demo:digits").processor(np.broadcast_to(np.uint8(0), (2**29, 2**29, 3)))
