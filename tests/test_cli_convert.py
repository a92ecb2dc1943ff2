"""`minimobile convert`: there and back, what it refuses to overwrite, and where it may write."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import minimobile
from minimobile.formats import huggingface
from tests.conftest import Run


def assert_same_model(first: Path, second: Path) -> None:
    left, right = minimobile.load(first), minimobile.load(second)
    assert type(left) is type(right)
    assert left.id2label == right.id2label
    assert left.processor.to_dict() == right.processor.to_dict()
    assert left.state_dict().keys() == right.state_dict().keys()
    for name, values in left.state_dict().items():
        np.testing.assert_array_equal(values, right.state_dict()[name])


def squash(text: str) -> str:
    """Return a text without its white space: a terminal wraps long paths wherever their lines end."""
    return "".join(text.split())


def test_there_and_back_loses_nothing(run: Run, classifier: Path, tmp_path: Path) -> None:
    native, folder = tmp_path / "x.h5", tmp_path / "y"
    code, out, err = run("convert", classifier, native)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert squash(out) == squash(
        f"""
        read     {classifier}
        format   Hugging Face directory, dialect huggingface
        network  MobileNetV1ForImageClassification
        mapped   137 arrays
        ignored  27 (a counter of training batches that stands at 0):
                 mobilenet_v1.conv_stem.normalization.num_batches_tracked,
                 mobilenet_v1.layer.0.normalization.num_batches_tracked, ...
        wrote    {native}
        format   native HDF5 file, 137 arrays, float32
        """
    )
    assert run("convert", native, folder).out.splitlines()[-1] == "format   Hugging Face directory, 164 arrays, float32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5", "y"]
    assert_same_model(classifier, native)
    assert_same_model(classifier, folder)


def test_nothing_is_overwritten_without_force(run: Run, classifier: Path, segmenter: Path, tmp_path: Path) -> None:
    native, folder = tmp_path / "x.h5", tmp_path / "y"
    folder.mkdir()  # an empty folder is free
    for destination in (native, folder):
        assert run("convert", segmenter, destination).code == 0
        path = native if destination == native else folder / "model.safetensors"
        kept = path.read_bytes()
        code, out, err = run("convert", classifier, destination)
        assert (code, out) == (1, "")
        expected = "the name of a new file, but it exists; --force (overwrite=True) replaces it"
        if destination == folder:
            expected = "a new or empty directory, but it holds files; --force (overwrite=True) replaces them"
        assert err == f"error: {destination}: expected {expected}\n"
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


def test_json_and_notes(run: Run, tmp_path: Path) -> None:
    config = minimobile.MobileNetV1Config(depth_multiplier=0.1, pool_size=7)
    minimobile.MobileNetV1Model(config).save(tmp_path / "x.h5")
    code, out, err = run("convert", tmp_path / "x.h5", tmp_path / "y", "--format", "json")
    assert code == 0
    report = json.loads(out)
    assert report["layout"] == "Hugging Face directory"
    assert report["notes"] == [err.removeprefix("note: ").rstrip("\n")]
    assert "pool_size 7" in err


def test_float16(run: Run, classifier: Path, tmp_path: Path) -> None:
    code, out, _ = run("convert", classifier, tmp_path / "x.h5", "--dtype", "float16")
    assert code == 0
    assert "rounded  28 arrays to float16" in out
    assert out.endswith(", 137 arrays, float16\n")
    code, _, err = run("convert", classifier, tmp_path / "y", "--dtype", "float16")
    assert (code, err.count("\n")) == (1, 1)
    assert "a native file (NAME.h5) takes float16" in err


def test_missing_weights_are_named(run: Run, segmenter: Path, tmp_path: Path) -> None:
    checkpoint = huggingface.read(segmenter)
    kept = {name: values for name, values in checkpoint.weights.items() if ".conv_1x1." not in name}
    huggingface.write(tmp_path / "y", dataclasses.replace(checkpoint, weights=kept))
    out = run("convert", tmp_path / "y", tmp_path / "z").out
    assert squash(
        """
        missing  5 weights that no output needs; written as zeros:
                 mobilenet_v2.conv_1x1.convolution.weight,
                 mobilenet_v2.conv_1x1.normalization.weight, ...
        """
    ) in squash(out)
