"""What is said of a file that cannot be loaded, and of one that can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile import tiny_checkpoint

from minimobile import formats
from minimobile.errors import FormatError
from minimobile.formats import hdf5, huggingface
from minimobile.formats.description import Description, Entry
from minimobile.formats.pytorch import pytorch


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a Hugging Face directory that can be read."""
    huggingface.write(tmp_path / "net", tiny_checkpoint())
    return tmp_path / "net"


def test_what_can_be_loaded_has_no_problem(directory: Path) -> None:
    found, checkpoint = formats.examine(directory)
    assert checkpoint is not None
    assert (found.format, found.dialect, found.problem) == ("Hugging Face directory", "huggingface", None)
    assert Entry("classifier.weight", (3, 8), "float32") in found.entries
    assert found.facts == {"model_type": "mobilenet_v1", "architectures": "MobileNetV1ForImageClassification",
                           "image_size": "224"}  # fmt: skip
    assert formats.describe(directory) == found
    assert json.loads(json.dumps(found.to_dict()))["entries"][0].keys() == {"name", "shape", "dtype"}


def test_the_native_file(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "net.h5", tiny_checkpoint(), dtype="float16")
    found = formats.describe(tmp_path / "net.h5")
    assert (found.format, found.producer, found.problem) == ("native HDF5 file", "minimobile", None)
    assert found.facts["architecture"] == "MobileNetV1ForImageClassification"
    assert found.facts["from source"] == "tiny"
    assert {entry.dtype for entry in found.entries} == {"float16"}


def test_another_model_is_described_with_the_reason(directory: Path) -> None:
    values = {"model_type": "efficientnet", "transformers_version": "4.30.0", "architectures": ["EfficientNetModel"]}
    (directory / "config.json").write_text(json.dumps(values))
    found, checkpoint = formats.examine(directory)
    assert checkpoint is None
    assert (found.dialect, found.producer) == (None, "transformers 4.30.0")
    assert found.facts == {"model_type": "efficientnet", "architectures": "EfficientNetModel"}
    assert len(found.entries) == 5
    assert "expected model_type mobilenet_v1 or mobilenet_v2, got 'efficientnet'" in str(found.problem)


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors"])
def test_of_a_damaged_directory_the_rest_is_told(directory: Path, damaged: str) -> None:
    path = directory / damaged
    path.write_bytes(path.read_bytes()[:50])
    found = formats.describe(directory)
    assert bool(found.facts) is (damaged != "config.json")
    assert bool(found.entries) is (damaged != "model.safetensors")
    assert damaged in str(found.problem)


def test_a_directory_without_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    found = formats.describe(directory)
    assert found.facts["model_type"] == "mobilenet_v1"
    assert "expected one of model.safetensors" in str(found.problem)


def test_shards_are_described_together(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    names = [entry.name for entry in formats.describe(directory).entries]
    assert names == []
    places = dict.fromkeys(["classifier.bias", "classifier.weight"], "model-00001-of-00001.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    found = formats.describe(directory)
    assert len(found.entries) == 5
    assert "found a difference" in str(found.problem)


def test_pytorch_weights_are_listed_without_reading_them(tmp_path: Path) -> None:
    from torch_files import DATA, GOOD, zipped

    path = tmp_path / "net.bin"
    path.write_bytes(zipped(GOOD, {"0": DATA}))
    (tensor,) = pytorch.list_tensors(path).values()
    assert (tensor.shape, tensor.storage.dtype_name) == ((2, 3), "float32")
    found = formats.describe(path)
    assert [(entry.shape, entry.dtype) for entry in found.entries] == [((2, 3), "float32")]
    assert found.problem is not None


def test_what_is_too_damaged_to_tell(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    found, checkpoint = formats.examine(path)
    assert checkpoint is None
    assert found == Description("HDF5 (the native file, or Keras')", problem=found.problem)
    assert "this HDF5 file is truncated: found 48 bytes" in str(found.problem)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello"])
def test_what_is_of_no_known_format_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="expected one of the known formats"):
        formats.describe(path)
    with pytest.raises(FormatError, match="no such file"):
        formats.describe(tmp_path / "missing")


@pytest.mark.crosscheck
def test_every_real_file_is_described(test_data: Path) -> None:
    """Whatever it is and whether it can be loaded or not: format, dialect and arrays are told."""
    models = test_data / "models"
    paths = [*(models / "huggingface").iterdir(), *(models / "keras").iterdir(), *(models / "tflite").iterdir()]
    paths += [path for path in (models / "tensorflow").iterdir() if path.suffix in (".pb", ".index")]
    for path in paths:
        found = formats.describe(path)
        assert found.dialect is not None and found.entries, path
        assert found.problem is None or "quant" in path.name, (path, found.problem)
