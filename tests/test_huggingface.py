"""Hugging Face directories and the table of formats: what is read, what is written, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import FOREIGN, assert_refused, assert_same, tiny_checkpoint

from minimobile import formats
from minimobile.errors import FormatError, MissingError
from minimobile.formats import hdf5, huggingface, safetensors_file
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.validation import check_weights
from minimobile.networks.config import MobileNetV1Config


def test_write_and_read_give_the_same_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "ein Ordner é" / "net"
    huggingface.write(directory, tiny_checkpoint())
    assert sorted(item.name for item in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    read = formats.read(str(directory))
    assert_same(read, dataclasses.replace(tiny_checkpoint(), config=read.config))
    assert read.config == tiny_checkpoint().config.replace(architectures=["MobileNetV1ForImageClassification"])
    assert read.provenance["format"] == "huggingface"


def test_every_format_is_found_by_content(tmp_path: Path) -> None:
    huggingface.write(tmp_path / "net", tiny_checkpoint())
    hdf5.write(tmp_path / "native.weights", tiny_checkpoint())
    for path in ("net", "net/model.safetensors", "native.weights"):
        assert set(formats.read(tmp_path / path).weights) == set(tiny_checkpoint().weights), path


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json"])
def test_a_link_that_leads_nowhere_is_not_taken_for_a_missing_file(tmp_path: Path, name: str) -> None:
    """A cache that was cleared by hand: the weights beside it, or no settings, would give other numbers."""
    huggingface.write(tmp_path, tiny_checkpoint())
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("gone")
    (tmp_path / "pytorch_model.bin").write_bytes(b"others")
    with pytest.raises(MissingError, match=f"{name}: no such file or directory; the link points to a file"):
        huggingface.read(tmp_path)


def test_a_bare_model_gets_the_prefix_and_loses_it_when_written(tmp_path: Path) -> None:
    weights = {name: values for name, values in tiny_checkpoint().weights.items() if name.startswith("mobilenet_v1.")}
    bare = dataclasses.replace(tiny_checkpoint(), weights=weights, architecture="MobileNetV1Model")
    huggingface.write(tmp_path, bare)
    stored = safetensors_file.read_header(tmp_path / "model.safetensors")
    assert set(stored) == {
        "conv_stem.convolution.weight",
        "conv_stem.normalization.num_batches_tracked",
        "conv_stem.normalization.running_mean",
    }
    assert set(formats.read(tmp_path).weights) == set(weights)
    assert formats.read(tmp_path).architecture == "MobileNetV1Model"


@pytest.mark.parametrize(
    ("named", "model_type", "keys", "expected"),
    [
        (["MobileNetV2Model"], "mobilenet_v2", ["classifier.weight"], "MobileNetV2Model"),
        (None, "mobilenet_v2", ["classifier.weight"], "MobileNetV2ForImageClassification"),
        (["MobileNetV1Model"], "mobilenet_v2", ["classifier.weight"], "MobileNetV2ForImageClassification"),
        (None, "mobilenet_v2", ["segmentation_head.x"], "MobileNetV2ForSemanticSegmentation"),
        ("MobileNetV1Model", "mobilenet_v1", ["x"], "MobileNetV1Model"),
        ([3], "mobilenet_v1", ["classifier.weight"], "MobileNetV1ForImageClassification"),
        ([[]], "mobilenet_v1", ["x"], "MobileNetV1Model"),
    ],
)
def test_the_architecture_is_named_or_found_from_the_weights(
    named: Any, model_type: str, keys: list[str], expected: str
) -> None:
    assert huggingface.choose_architecture(named, model_type, keys) == expected


def test_config_stands_in_for_the_file(tmp_path: Path) -> None:
    huggingface.write(tmp_path, tiny_checkpoint())
    (tmp_path / "config.json").unlink()
    assert_refused(formats.read, tmp_path, r"expected config.json there, found none; add that file, pass config=")
    config = MobileNetV1Config(tf_padding=False)
    assert formats.read(tmp_path, config=config).config is config


CONFIGS: dict[str, tuple[str, str]] = {
    "another-model": ('{"model_type": "resnet"}', "expected model_type mobilenet_v1 or mobilenet_v2, got 'resnet'"),
    "no-model": ("{}", "got None"),
    "not-an-object": ("[1]", "expected a JSON object, found an array"),
    "html": ("<html>", "valid JSON"),
    "empty": ("", "valid JSON"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "duplicate": ('{"model_type": "mobilenet_v1", "model_type": "mobilenet_v2"}', "there twice"),
    "million-digits": ('{"model_type": "mobilenet_v1", "num_labels": ' + "9" * 10**6 + "}", "valid JSON"),
    "nan": ('{"model_type": "mobilenet_v1", "layer_norm_eps": NaN}', "NaN is no JSON number"),
    "width": ('{"model_type": "mobilenet_v1", "depth_multiplier": 0}', "greater than zero"),
    "labels": ('{"model_type": "mobilenet_v1", "id2label": {"a": "b"}}', "class numbers"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_bad_config_is_refused(tmp_path: Path, case: str) -> None:
    content, match = CONFIGS[case]
    huggingface.write(tmp_path, tiny_checkpoint())
    (tmp_path / "config.json").write_text(content)
    assert_refused(lambda _: formats.read(tmp_path), tmp_path / "config.json", match)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_foreign_weights_are_named(tmp_path: Path, name: str, file: str) -> None:
    huggingface.write(tmp_path, tiny_checkpoint())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / file).write_bytes(FOREIGN[name][0])
    assert_refused(lambda _: formats.read(tmp_path), tmp_path / file, FOREIGN[name][1])
    assert_refused(formats.read, tmp_path / file, f"expected one of the known formats .*{FOREIGN[name][1]}")


def test_weights_with_and_without_prefix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="with and without its prefix"):
        huggingface.canonical_weights({"a": np.ones(1), "mobilenet_v1.a": np.ones(1)}, "mobilenet_v1", "x")


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"")
    (tmp_path / "noweights").mkdir()
    (tmp_path / "noweights" / "config.json").write_text('{"model_type": "mobilenet_v1"}')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(bytes.fromhex("0801128dbb310ad91a12a91a"))
    (tmp_path / "graph").write_bytes(bytes.fromhex("0801128dbb310ad91a12a91a"))
    (tmp_path / "net.onnx").write_bytes(bytes.fromhex("080a12077079746f726368"))
    (tmp_path / "cat.bmp").write_bytes(b"BM" + bytes(60))
    (tmp_path / "words").write_bytes(b"BMW drives on")
    for name, match in {
        "empty": "an empty directory",
        "other": "a directory with photo.jpg",
        "saved": r"saved_model\.pb: truncated or damaged",
        "saved/saved_model.pb": r"saved_model\.pb: truncated or damaged",
        "graph": "a SavedModel's graph; give its folder",
        "net.onnx": "an ONNX model",
        "cat.bmp": "a BMP picture",
        "words": "found a text",
        "noweights": "expected one of model.safetensors, .* found none",
        "pipe": "a pipe, socket or device",
        "dangling": "no such file or directory",
        "absent.h5": "no such file or directory",
    }.items():
        assert_refused(formats.read, tmp_path / name, match)


def test_a_directory_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    huggingface.write(tmp_path / "net", tiny_checkpoint())
    hdf5.write(tmp_path / "net" / "x.h5", tiny_checkpoint())
    try:
        for item in (*(tmp_path / "net").iterdir(), tmp_path / "net"):
            item.chmod(0o555 if item.is_dir() else 0o444)
        assert formats.read(tmp_path / "net").weights
        assert formats.read(tmp_path / "net" / "x.h5").weights
    finally:
        (tmp_path / "net").chmod(0o755)


def test_h34_a_failed_write_leaves_the_old_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface.write(tmp_path, tiny_checkpoint())
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FormatError, match="No space left on device"):
        huggingface.write(tmp_path, tiny_checkpoint(tf_padding=False))
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before


FULL_DISK = """
import dataclasses, resource, signal, sys
from pathlib import Path
import numpy as np
from hostile import tiny_checkpoint
from minimobile.errors import FormatError, MissingError
from minimobile.formats import hdf5, huggingface

large = dataclasses.replace(tiny_checkpoint(), weights={"classifier.weight": np.ones((100, 1000), np.float32)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 100, 5000, 200_000, 399_000):
    for write, name in ((hdf5.write, "x.h5"), (huggingface.write, "net")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write(Path(sys.argv[1]) / name, large)
            sys.exit(f"{limit} bytes were enough for {name}")
        except FormatError as error:
            assert "File too large" in str(error) and "\\n" not in str(error), error
"""


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of files are POSIX's")
def test_h34_a_full_disk_is_one_sentence_and_leaves_the_old_files(tmp_path: Path) -> None:
    """Played by a limit on the size of files, in a child process, at the first byte, in the middle, at the end."""
    huggingface.write(tmp_path / "net", tiny_checkpoint())
    hdf5.write(tmp_path / "x.h5", tiny_checkpoint())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-B", "-c", FULL_DISK, str(tmp_path)], env=environment, timeout=300, check=True)
    for path in (tmp_path / "net", tmp_path / "x.h5"):
        assert len(formats.read(path).weights) == 4
    assert len(list(tmp_path.rglob("*"))) == 5


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FormatError, match="cannot be made"):
        huggingface.write(tmp_path / "file" / "net", tiny_checkpoint())


def test_missing_unexpected_and_wrong_weights_are_reported_in_full() -> None:
    weights = {"a": np.ones((2, 3)), "b": np.ones(3), "x": np.ones(1), "y": np.ones(1)}
    shapes = {"a": (2, 3), "b": (4,), "c": (1,), "d": (2,)}
    with pytest.raises(FormatError) as caught:
        check_weights(weights, shapes, "net.h5")
    for part in ("net.h5", "2 missing: c, d", "2 unexpected: x, y", "1 of another shape: b is (3,) instead of (4,)"):
        assert part in str(caught.value)
    with pytest.raises(FormatError, match="missing: c, d") as caught:
        check_weights(weights, shapes, "net.h5", strict=False)
    assert "unexpected" not in str(caught.value)


def test_right_weights_pass_and_spoilt_ones_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_weights({"a": np.ones(2), "more": np.ones(1)}, {"a": (2,)}, "net", strict=False)
    with pytest.warns(UserWarning, match="net: 1 weights hold NaN or infinity: a"):
        check_weights({"a": np.array([1, np.nan]), "b": np.ones(1)}, {"a": (2,), "b": (1,)}, "net")


def names_of(test_data: Path) -> list[Path]:
    return sorted((test_data / "models" / "huggingface").iterdir())


@pytest.mark.crosscheck
def test_real_checkpoints_are_read_and_written_without_a_change(test_data: Path, tmp_path: Path) -> None:
    import safetensors.numpy

    for directory in names_of(test_data):
        checkpoint = formats.read(directory)
        expected = safetensors.numpy.load_file(directory / "model.safetensors")
        # Counters of training steps travel where they have counted.
        kept = {name for name, values in expected.items() if values.dtype.kind == "f" or values.any()}
        assert set(checkpoint.weights) == kept
        huggingface.write(tmp_path / directory.name, checkpoint)
        hdf5.write(tmp_path / f"{directory.name}.h5", checkpoint)
        for path in (tmp_path / directory.name, tmp_path / f"{directory.name}.h5"):
            assert_same(formats.read(path), checkpoint)


@pytest.mark.crosscheck
@pytest.mark.parametrize("is_zip", [None, True, False])
def test_transformers_reads_what_we_write_with_equal_logits(
    test_data: Path, tmp_path: Path, is_zip: bool | None
) -> None:
    """`is_zip`: None is safetensors as we write them, else the way by which torch.save wrote a pytorch_model.bin."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    for source in names_of(test_data):
        checkpoint = formats.read(source)
        cls = getattr(transformers, checkpoint.architecture)
        expected = cls.from_pretrained(source).eval()
        if is_zip is not None:
            shutil.copytree(source, tmp_path / "bin" / source.name)
            folder = tmp_path / "bin" / source.name
            folder.chmod(0o755)
            (folder / "model.safetensors").unlink()
            torch.save(expected.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
            checkpoint = formats.read(folder)
            assert checkpoint.provenance["weights"] == "pytorch_model.bin"
        huggingface.write(tmp_path / "out" / source.name, checkpoint)
        model, report = cls.from_pretrained(tmp_path / "out" / source.name, output_loading_info=True)
        assert not any(report.values()), report
        assert model.config.id2label == expected.config.id2label
        image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(model.eval()(image).logits, expected(image).logits)


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", ["MobileNetV1Model", "MobileNetV2Model"])
def test_transformers_reads_a_bare_model_that_we_wrote(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = getattr(transformers, name.replace("Model", "Config"))(depth_multiplier=0.25)
    expected = getattr(transformers, name)(config).eval()
    expected.save_pretrained(tmp_path / "theirs")
    checkpoint: Checkpoint = formats.read(tmp_path / "theirs")
    assert checkpoint.architecture == name
    assert all(key.startswith(checkpoint.config.model_type + ".") for key in checkpoint.weights)
    huggingface.write(tmp_path / "ours", checkpoint)
    model, report = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(image).pooler_output, expected(image).pooler_output)
