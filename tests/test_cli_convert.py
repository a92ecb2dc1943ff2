from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import minimobile
from tests.conftest import Run


def assert_same_model(first: Path, second: Path) -> None:
    left, right = minimobile.load(first), minimobile.load(second)
    assert type(left) is type(right)
    assert left.id2label == right.id2label
    assert left.processor.to_dict() == right.processor.to_dict()
    assert left.state_dict().keys() == right.state_dict().keys()
    for name, values in left.state_dict().items():
        np.testing.assert_array_equal(values, right.state_dict()[name])


def test_there_and_back_loses_nothing(run: Run, segmenter: Path, tmp_path: Path) -> None:
    native, folder = tmp_path / "x.h5", tmp_path / "y"
    assert run("convert", segmenter, native) == (0, f"wrote {native}\n", "")
    assert run("convert", native, folder) == (0, f"wrote {folder}\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5", "y"]
    assert_same_model(segmenter, native)
    assert_same_model(segmenter, folder)


def test_nothing_is_overwritten_without_force(run: Run, classifier: Path, segmenter: Path, tmp_path: Path) -> None:
    native, folder = tmp_path / "x.h5", tmp_path / "y"
    folder.mkdir()  # an empty folder is free
    for destination in (native, folder):
        assert run("convert", segmenter, destination).code == 0
        path = native if destination == native else folder / "model.safetensors"
        kept = path.read_bytes()
        code, out, err = run("convert", classifier, destination)
        assert (code, out) == (1, "")
        assert err == f"error: {destination}: expected a name that is free, found it taken; --force overwrites it\n"
        assert path.read_bytes() == kept
        assert run("convert", classifier, destination, "--force").code == 0
        assert_same_model(classifier, destination)


def test_force_keeps_other_files_of_a_folder(run: Run, classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes.txt").write_text("mine")
    assert run("convert", classifier, tmp_path / "y", "--force").code == 0
    assert (tmp_path / "y" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_a_folder_where_a_file_should_be_and_the_reverse(run: Run, classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "x.h5").mkdir()
    (tmp_path / "y").write_text("mine")
    for name, sentence in (("x.h5", "expected a file, found a directory"), ("y", "expected a directory, found a file")):
        code, _, err = run("convert", classifier, tmp_path / name, "--force")
        assert code == 1
        assert err == f"error: {tmp_path / name}: {sentence} of that name\n"
    assert (tmp_path / "y").read_text() == "mine"


@pytest.mark.parametrize("name", ["no/x.h5", "no/y"])
def test_a_destination_in_no_folder(run: Run, classifier: Path, tmp_path: Path, name: str) -> None:
    code, out, err = run("convert", classifier, tmp_path / name)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path / name}: ")
    assert err.count("\n") == 1


def test_a_failure_on_the_way_leaves_the_destination_as_it_was(
    run: Run, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: object, directory: Path) -> None:
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(minimobile.MobileNetV1ForImageClassification, "save_pretrained", fail)
    code, out, err = run("convert", classifier, tmp_path / "y")
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []
