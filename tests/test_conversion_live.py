"""Conversions from real and foreign files, and what PyTorch and transformers read of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conversions import make_checkpoint, stored, without_last_convolution, write
from judgement import assert_agrees

import minimobile as mm
from minimobile import formats
from minimobile.formats import hdf5
from minimobile.formats.checkpoint import ARCHITECTURES
from minimobile.models.conversion import convert


@pytest.mark.crosscheck
def test_a_pickle_gives_every_array_back_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    source = write(tmp_path / "source", make_checkpoint())
    before = stored(source)
    arrays = safetensors.numpy.load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save({name: torch.tensor(values) for name, values in arrays.items()}, source / "pytorch_model.bin")
    convert(source, tmp_path / "back")
    assert stored(tmp_path / "back") == before


def load_in_transformers(directory: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """Return transformers' model of a directory, once it was seen to load without a complaint."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        theirs = getattr(transformers, formats.read(directory).architecture)
        model, found = theirs.from_pretrained(directory, output_loading_info=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert not any(found.values()), found
    assert [record.message for record in caplog.records] == []
    return model.eval()


def assert_equal_in_transformers(directory: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    theirs = load_in_transformers(directory, caplog)
    pixels = np.random.default_rng(7).standard_normal((1, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels))[0].numpy()
    ours = mm.load(directory)
    assert_agrees(ours, pixels, {ours.graph.outputs[0]: expected})


@pytest.mark.crosscheck
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if "ObjectDetection" not in name])
def test_transformers_loads_what_was_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: str
) -> None:
    checkpoint = make_checkpoint(architecture, image_size=(40, 48))
    if architecture.endswith("Segmentation"):
        checkpoint = without_last_convolution(checkpoint)
    hdf5.write(tmp_path / "x.h5", checkpoint)
    convert(tmp_path / "x.h5", tmp_path / "y")
    assert_equal_in_transformers(tmp_path / "y", 40, caplog)


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tensorflow/mobilenet_v1_0.25_128.ckpt", 128),
        ("tensorflow/mobilenet_v1_0.25_128_frozen.pb", 128),
        ("keras/mobilenet_v1_0.25_224.h5", 224),
        ("keras/mobilenet_v1_0.25_224.keras", 224),
        ("keras/mobilenet_v1_0.25_224.weights.h5", 224),
        ("tflite/mobilenet_v1_0.25_224_float.tflite", 224),
        ("tflite/deeplabv3_mobilenet_v2_0.5_257_float.tflite", 257),
    ],
)
def test_foreign_files_reach_transformers(
    tmp_path: Path, test_data: Path, caplog: pytest.LogCaptureFixture, name: str, size: int
) -> None:
    source = test_data / "models" / name
    report = convert(source, tmp_path / "x.h5")
    convert(tmp_path / "x.h5", tmp_path / "y")
    assert formats.read(tmp_path / "x.h5").dialect == formats.read(source).dialect == report.dialect
    pixels = np.random.default_rng(7).standard_normal((1, 3, size, size)).astype(np.float32)
    before, after = (mm.load(path)(pixels)[0] for path in (source, tmp_path / "y"))
    np.testing.assert_array_equal(before, after)
    assert_equal_in_transformers(tmp_path / "y", size, caplog)


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v1_0.25_128", 128),
        ("mobilenet_v2_1.0_224", 224),
        ("deeplabv3_mobilenet_v2_0.5_257", 257),
        ("deeplabv3_mobilenet_v2_0.5_513_portrait", 257),
    ],
)
def test_real_checkpoints_there_and_back(
    tmp_path: Path, test_data: Path, caplog: pytest.LogCaptureFixture, name: str, size: int
) -> None:
    source = test_data / "models" / "huggingface" / name
    convert(source, tmp_path / "x.h5")
    convert(tmp_path / "x.h5", tmp_path / "y")
    before, after = stored(source), stored(tmp_path / "y")
    assert {key for key in before if not key.endswith(".json")} == {key for key in after if not key.endswith(".json")}
    assert all(before[key] == after[key] for key in before if not key.endswith(".json"))
    assert json.loads(before["preprocessor_config.json"]) == json.loads(after["preprocessor_config.json"])
    assert_equal_in_transformers(tmp_path / "y", size, caplog)
