"""Conversions: what comes back bit for bit, and what the report says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conversions import COUNTER, make_checkpoint, stored, without_last_convolution, write

import minimobile as mm
from minimobile.errors import FormatError, InputError
from minimobile.formats import hdf5
from minimobile.formats.checkpoint import ARCHITECTURES
from minimobile.models import conversion, layouts
from minimobile.models.conversion import convert
from minimobile.models.layouts import choose_layout

PARTS = ("MobileNetV2Model", "MobileNetV2ForImageClassification")  # of others, nearly: their turn comes with the slow


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=pytest.mark.slow if name in PARTS else ()) for name in ARCHITECTURES]
)
def test_there_and_back_gives_every_array_back_bit_for_bit(tmp_path: Path, architecture: str) -> None:
    source = write(tmp_path / "source", make_checkpoint(architecture))
    convert(source, tmp_path / "native.h5")
    convert(tmp_path / "native.h5", tmp_path / "back")
    assert any(name.endswith(COUNTER) for name in stored(source))
    assert stored(tmp_path / "back") == stored(source)


def test_shards_give_every_array_back_too(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    before = stored(source)
    arrays = safetensors.numpy.load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    places = {name: f"model-{1 + (number % 2)}.safetensors" for number, name in enumerate(arrays)}
    for place in set(places.values()):
        part = {name: values for name, values in arrays.items() if places[name] == place}
        safetensors.numpy.save_file(part, source / place)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    convert(source, tmp_path / "whole")
    assert stored(tmp_path / "whole") == before


def test_the_report_accounts_for_every_array(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("MobileNetV1Model")
    strangers = {"classifier.weight": np.zeros((3, 102), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    still = {name: values * 0 for name, values in checkpoint.weights.items() if name.endswith(COUNTER)}
    source = write(
        tmp_path / "x", dataclasses.replace(checkpoint, weights={**checkpoint.weights, **strangers, **still})
    )
    report = convert(source, tmp_path / "y.h5")
    assert (report.format, report.dialect, report.layout) == (
        "Hugging Face directory",
        "huggingface",
        layouts.NATIVE,
    )
    assert set(report.mapped) | set(report.ignored) == set(safetensors.numpy.load_file(source / "model.safetensors"))
    assert not set(report.mapped) & set(report.ignored)
    assert report.mapped["layer.3.convolution.weight"] == "mobilenet_v1.layer.3.convolution.weight"
    assert report.ignored["classifier.bias"] == "nothing that a MobileNetV1Model has"
    assert sorted(report.written) == sorted(name for name in checkpoint.weights if not name.endswith(COUNTER))
    assert (report.missing, report.idle, report.rounded, report.notes) == ((), (), (), ())
    assert json.loads(json.dumps(report.to_dict()))["ignored"]["conv_stem.normalization." + COUNTER] == (
        "a counter of training batches that stands at 0"
    )


def test_a_deeplab_without_its_idle_convolution(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("MobileNetV2ForSemanticSegmentation", output_stride=8)
    source = write(tmp_path / "x", without_last_convolution(checkpoint))
    native = convert(source, tmp_path / "y.h5")
    assert {name.split(".")[1] for name in native.missing} == {"conv_1x1"}
    assert len(native.missing) == 5
    assert (native.idle, set(native.written) & set(native.missing)) == ((), set())
    directory = convert(source, tmp_path / "z")
    assert directory.idle == directory.missing == native.missing
    arrays = safetensors.numpy.load_file(tmp_path / "z" / "model.safetensors")
    assert not arrays["mobilenet_v2.conv_1x1.convolution.weight"].any()
    assert (arrays["mobilenet_v2.conv_1x1.normalization.running_var"] == 1).all()
    pixels = np.random.default_rng(1).standard_normal((1, 3, 9, 8)).astype(np.float32)
    logits = [mm.load(path, engine="reference")(pixels).logits for path in (source, tmp_path / "z")]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_a_part_of_an_idle_convolution_is_ignored_with_the_reason(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("MobileNetV2ForSemanticSegmentation")
    name = "mobilenet_v2.conv_1x1.convolution.weight"
    partial = without_last_convolution(checkpoint)
    partial = dataclasses.replace(partial, weights={**partial.weights, name: checkpoint.weights[name]})
    report = convert(write(tmp_path / "x", partial), tmp_path / "y.h5")
    assert report.ignored == {name: "part of a layer that no output needs, without the rest of it"}


def test_float16_says_what_it_rounds(tmp_path: Path) -> None:
    source = write(tmp_path / "x", make_checkpoint())
    report = convert(source, tmp_path / "y.h5", dtype="float16")
    weights = make_checkpoint().weights
    assert set(report.rounded) == {
        name for name, values in weights.items() if (values.astype(np.float16) != values).any()
    }


def test_float64_says_what_it_rounds(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    weights = {**checkpoint.weights, "classifier.bias": np.array([1 / 3, 1.0, 2.0])}
    report = convert(write(tmp_path / "x", dataclasses.replace(checkpoint, weights=weights)), tmp_path / "y.h5")
    assert report.rounded == ("classifier.bias",)


def test_float16_overflow_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    checkpoint.weights["classifier.bias"][1] = 70000
    source = write(tmp_path / "x", checkpoint)
    with pytest.raises(FormatError, match=r"classifier.bias: expected values that float16 can hold .* found 70000"):
        convert(source, tmp_path / "y.h5", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("architecture", "fields", "processor", "said"),
    [
        ("MobileNetV1Model", {"pool_size": 7}, {}, "pool_size 7"),
        ("MobileNetV1Model", {"output_stride": 8}, {}, "output_stride 8"),
        ("MobileNetV1Model", {"bottom_right_padding": "all"}, {}, "bottom_right_padding 'all'"),
        ("MobileNetV1Model", {}, {"central_fraction": 0.875}, "central_fraction"),
        ("MobileNetV1Model", {}, {}, None),
    ],
)
def test_what_the_written_layout_cannot_say(
    tmp_path: Path, architecture: str, fields: dict[str, Any], processor: dict[str, Any], said: str | None
) -> None:
    checkpoint = make_checkpoint(architecture, **fields)
    checkpoint = dataclasses.replace(checkpoint, processor={**(checkpoint.processor or {}), **processor})
    notes = convert(write(tmp_path / "x", checkpoint), tmp_path / "y").notes
    assert len(notes) == (said is not None)
    assert all(note.startswith("transformers") and str(said) in note for note in notes)
    assert stored(tmp_path / "y") == stored(tmp_path / "x")


def test_the_dialect_stays_with_the_weights(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", dataclasses.replace(make_checkpoint("MobileNetV1Model"), dialect="keras"))
    assert convert(tmp_path / "x.h5", tmp_path / "y").dialect == "keras"


def test_a_dot_in_a_name_is_no_suffix(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    assert convert(source, tmp_path / "mobilenet_v1_0.1_32").layout == layouts.DIRECTORY
    names = (
        "mobilenet_v2_1.0_224 mobilenet_v2_1.0-rc1 net.v2 net.V1 net-1.5 run.2026-11-22 net.ckpt-90 .hidden a.b_c net."
    )
    assert {choose_layout(tmp_path / name) for name in names.split()} == {layouts.DIRECTORY}


@pytest.mark.parametrize("name", ["net.xyz", "net.hf", "net.XML", "net_1.0_224.savedmodel", "net.pt2", "net.tar.gz"])
def test_an_unknown_ending_makes_no_directory_unless_it_is_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"or a directory \(.*\) without a suffix, or one that exists, got the suffix '\."
    ):
        convert("demo:digits", tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / name).mkdir()
    assert choose_layout(tmp_path / name) == layouts.DIRECTORY


@pytest.mark.parametrize("name", ["net.tfilte", "net.onx", "net.TFL", "net.hdf"])
def test_a_misspelt_ending_makes_no_directory_and_no_file(tmp_path: Path, name: str) -> None:
    for write_there in (lambda path: convert("demo:digits", path), mm.load("demo:digits").save):
        with pytest.raises(InputError, match=r"did you mean net\.(tflite|onnx|hdf5)\?"):
            write_there(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.keras", "net.pb"])
def test_a_file_of_ours_is_not_saved_under_the_ending_of_another_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected a name ending in \.h5, \.tflite or \.onnx, got '\."):
        mm.load("demo:digits").save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_is_no_network_of_ours_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "x", make_checkpoint())
    (source / "config.json").write_text('{"model_type": "efficientnet"}')
    with pytest.raises(FormatError, match="expected model_type mobilenet_v1 or mobilenet_v2, got 'efficientnet'"):
        convert(source, tmp_path / "y.h5")
    checkpoint = make_checkpoint()
    del checkpoint.weights["mobilenet_v1.layer.3.convolution.weight"]  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match=r"1 missing: mobilenet_v1.layer.3.convolution.weight"):
        convert(write(tmp_path / "z", checkpoint), tmp_path / "y.h5")
    assert not (tmp_path / "y.h5").exists()


def test_an_old_processor_does_not_stay_with_a_new_network(tmp_path: Path) -> None:
    old = write(tmp_path / "old", make_checkpoint())
    (old / "notes.txt").write_text("mine")
    new = write(tmp_path / "new", dataclasses.replace(make_checkpoint("MobileNetV2Model"), processor=None))
    convert(new, old, overwrite=True)
    assert sorted(path.name for path in old.iterdir()) == ["config.json", "model.safetensors", "notes.txt"]
    assert stored(old) == stored(new)


def test_a_quantised_network_becomes_one_of_floats_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description, checkpoint = conversion.examine(write(tmp_path / "x", make_checkpoint("MobileNetV1Model")))
    object.__setattr__(checkpoint, "quantized", FormatError("what cannot be run"))
    monkeypatch.setattr(conversion, "examine", lambda source: (description, checkpoint))
    (note,) = convert(tmp_path / "x", tmp_path / "y").notes
    assert "computes in integers" in note
