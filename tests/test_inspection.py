"""What a source holds and what its network costs, as one document."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimobile as mm
from minimobile.errors import FormatError, InputError, MinimobileError
from minimobile.formats import hdf5
from minimobile.imaging.summary import describe_settings, find_size
from minimobile.models.inspection import inspect


def test_the_document_has_everything(segmenter: Path) -> None:
    document = json.loads(json.dumps(inspect(segmenter, (64, 96)).to_dict()))
    assert document["format"] == "Hugging Face directory"
    assert (document["architecture"], document["classes"]) == ("MobileNetV2ForSemanticSegmentation", 4)
    assert (document["image_size"], document["output_stride"]) == ([64, 96], 8)
    assert document["totals"].keys() == {"parameters", "multiply_adds"}
    assert document["paper"]["rows"][0]["input"] == "64 x 96 x 3"
    layers = {layer["name"]: layer for layer in document["layers"]}
    stem = layers["conv_stem.first_conv"]
    assert (stem["padding"], stem["kind"], stem["stride"]) == ([[0, 1], [0, 1]], "Conv 3x3", 2)
    assert stem["receptive_field"][0] == {"size": 3, "step": 2, "start": 0}
    assert stem["output_bytes"] == 4 * stem["output_shape"][0] * 32 * 48
    assert layers["segmentation_head.classifier"]["receptive_field"] is None
    assert (layers["conv_1x1"]["is_computed"], layers["conv_1x1"]["live_bytes"]) == (False, None)
    peak = document["peak_memory"]
    assert (
        peak["bytes"]
        == layers[peak["layer"]]["live_bytes"]
        == max(layer["live_bytes"] or 0 for layer in layers.values())
    )
    assert sum(kind["multiply_adds_share"] for kind in document["kinds"]) == pytest.approx(1)


def test_the_size_is_the_model_s_own_unless_it_is_said(classifier: Path, tmp_path: Path) -> None:
    sizes = {source: inspect(source).network for source in ("demo:digits", "demo:scenes", classifier)}
    assert [network and network.image_size for network in sizes.values()] == [(64, 64), (160, 160), (32, 48)]
    mm.MobileNetV1Model(mm.MobileNetV1Config(depth_multiplier=0.1, image_size=96)).save_pretrained(tmp_path / "x")
    found = inspect(tmp_path / "x")
    assert found.network is not None
    assert (found.preprocessing, found.network.image_size) == (None, (96, 96))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (224, 224)),
        ({"crop_size": {"height": 96, "width": 64}}, (96, 64)),
        ({"size": {"height": 96, "width": 64}, "do_center_crop": False}, (96, 64)),
        ({"size": {"shortest_edge": 96}, "do_center_crop": False}, None),
        ({"size": {"height": 96, "width": 64}, "do_resize": False, "do_center_crop": False}, None),
        ({"size": {"max_height": 65, "max_width": 65}, "do_center_crop": False,
          "canvas_size": {"height": 65, "width": 65}, "canvas_value": 0}, (65, 65)),
    ],
)  # fmt: skip
def test_the_size_of_what_leaves_a_processor(settings: dict[str, Any], size: tuple[int, int] | None) -> None:
    assert find_size(settings) == size
    if size is not None:
        picture = np.zeros((40, 50, 3), np.uint8)
        processor = mm.MobileNetV2ImageProcessor.from_dict(settings)
        assert processor(picture, return_tensors="np")["pixel_values"].shape[2:] == size


def test_an_embedded_model() -> None:
    found = inspect("demo:scenes", 96)
    assert found.network is not None
    assert found.network.title == f"DeepLab V2 {found.network.config.width_multiplier} at 96 x 96"
    assert found.preprocessing is not None


def test_a_network_without_a_head_has_no_classes(tmp_path: Path) -> None:
    mm.MobileNetV2Model(mm.MobileNetV2Config(depth_multiplier=0.1)).save_pretrained(tmp_path / "x")
    found = inspect(tmp_path / "x", 32)
    assert found.network is not None
    assert (found.network.labels, found.to_dict()["classes"]) == ((), 0)
    assert found.network.features == "conv_1x1"
    assert found.preprocessing is None


@pytest.mark.parametrize(
    ("text", "width", "size"),
    [("0.5", 0.5, (32, 40)), ("1", 1.0, (32, 40)), (".35@64", 0.35, (64, 64)), ("@64x33", 0.25, (64, 33))],
)
def test_what_it_is_compared_with(classifier: Path, text: str, width: float, size: tuple[int, int]) -> None:
    (other,) = inspect(classifier, (32, 40), [text]).others
    assert (other.config.width_multiplier, other.image_size) == (width, size)
    assert other.config.class_count == 3


def test_compared_with_a_file_of_that_name(
    classifier: Path, segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.5").symlink_to(segmenter)
    (other,) = inspect(classifier, 32, ["0.5"]).others
    assert other.architecture == "MobileNetV2ForSemanticSegmentation"


@pytest.mark.parametrize("text", ["", "@", "0", "0.5@0", "-1", "1e3", "x@64", "65", "missing"])
def test_comparisons_that_mean_nothing(classifier: Path, text: str) -> None:
    with pytest.raises(MinimobileError):
        inspect(classifier, 32, [text])


def test_the_ways_to_compare_are_named(classifier: Path) -> None:
    with pytest.raises(InputError, match=r"compare: expected a width \(0.5\), a size \(@160\), .* got '1e3' \(1e3: no"):
        inspect(classifier, 32, ["1e3"])


def test_weights_of_another_network_are_the_problem(classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    mm.load(classifier).save(path)
    checkpoint = hdf5.read(path)
    kept = {name: values for name, values in checkpoint.weights.items() if "layer.7." not in name}
    hdf5.write(path, dataclasses.replace(checkpoint, weights=kept))
    found = inspect(path)
    assert (found.network, found.checkpoint, found.preprocessing) == (None, None, None)
    assert "5 missing: mobilenet_v1.layer.7.convolution.weight" in str(found.description.problem)


def test_too_damaged_or_missing(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(FormatError, match=r"x.h5: this HDF5 file is truncated: found 48 bytes"):
        inspect(tmp_path / "x.h5")
    with pytest.raises(FormatError, match="no such file"):
        inspect(tmp_path / "missing")
    with pytest.raises(InputError, match="image_size"):
        inspect("demo:digits", 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "shortest edge to 256 (bilinear), crop 224 x 224, scale to [-1, 1]"),
        (
            {"size": {"height": 96, "width": 64}, "resample": 0, "do_center_crop": False, "do_normalize": False},
            "96 x 64 (nearest), multiply by 1/255",
        ),
        (
            {"image_mean": [0.485, 0.456, 0.406], "image_std": 0.5, "do_resize": False},
            "crop 224 x 224, multiply by 1/255, subtract (0.485, 0.456, 0.406), divide by 0.5",
        ),
        (
            {"central_fraction": 0.875, "resize_method": "tf1_bilinear", "size": {"height": 8, "width": 8},
             "do_center_crop": False},
            "keep the central 0.875, 8 x 8 (tf1 bilinear), scale to [-1, 1]",
        ),
        (
            {"size": {"max_height": 513, "max_width": 513}, "do_center_crop": False, "canvas_size": {"height": 513,
             "width": 513}, "canvas_value": 127.5},
            "fit into 513 x 513 (bilinear), fill up to 513 x 513 with 127.5, scale to [-1, 1]",
        ),
        ({"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}, "nothing"),
        ({"size": {"shortest_edge": 10, "longest_edge": 20}, "do_center_crop": False, "do_rescale": False},
         "shortest edge to 10, longest edge to 20 (bilinear), multiply by 1, subtract 0.5, divide by 0.5"),
    ],
)  # fmt: skip
def test_preprocessing_in_words(settings: dict[str, object], words: str) -> None:
    assert describe_settings(settings) == words
