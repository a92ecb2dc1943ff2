"""What comes before a network: our pixel values beside those of other ways to prepare a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import twins
from PIL import Image

import minimobile as mm
from minimobile.comparison.pixels import compare_pixels

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 44, 3), dtype=np.uint8))
SMALL = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


def compare(other: mm.MobileNetV1ImageProcessor, picture=PICTURE):
    return compare_pixels(mm.MobileNetV1ImageProcessor(**SMALL), picture, other)


@pytest.fixture
def without_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have transformers look as if it were not installed: importing it takes longer than all of these tests."""

    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("minimobile.storage.extras.import_module", fail)


@pytest.mark.usefixtures("without_frameworks")
def test_where_and_by_how_much_another_processor_differs() -> None:
    same, report = (compare(mm.MobileNetV1ImageProcessor(**settings)) for settings in (SMALL, SMALL | {"resample": 0}))
    assert same.pixels[0].is_equal is True and same.pixels[0].max_difference == 0 and same.pixels[0].first is None
    row = report.pixels[0]
    assert not report.agrees and report.first_difference == row.name == "the other's processor"
    assert report.diagnosis == "settings: resample 0 (ours: 2)"
    ours, theirs = (
        mm.MobileNetV1ImageProcessor(**settings)(PICTURE, return_tensors="np")["pixel_values"][0]
        for settings in (SMALL, SMALL | {"resample": 0})
    )
    assert row.max_difference == np.abs(ours.astype(float) - theirs).max()
    assert row.max_levels == pytest.approx(row.max_difference * 127.5)
    assert row.share == (ours != theirs).any(axis=0).mean()
    place = row.first["channel"], row.first["row"], row.first["column"]
    assert (row.first["ours"], row.first["theirs"]) == (ours[place], theirs[place])
    above = slice(0, row.first["row"])
    assert np.array_equal(ours[:, above], theirs[:, above])


@pytest.mark.usefixtures("without_frameworks")
def test_tensorflows_two_ways_to_resize_are_told_apart() -> None:
    rows = {row.name: row for row in compare(mm.MobileNetV1ImageProcessor(**SMALL)).pixels}
    legacy, corners = rows["TensorFlow 1, bilinear"], rows["TensorFlow 1, align_corners"]
    assert legacy.is_equal is corners.is_equal is False
    assert legacy.max_levels > 10 and legacy.max_difference != corners.max_difference


@pytest.mark.usefixtures("without_frameworks")
def test_another_size_is_said_to_be_one() -> None:
    row = compare(mm.MobileNetV1ImageProcessor(**SMALL | {"crop_size": {"height": 32, "width": 31}})).pixels[0]
    assert row.is_equal is False and row.max_difference is None
    assert row.note == "shape (1, 3, 32, 31), ours is (1, 3, 32, 32)"


@pytest.mark.crosscheck
@pytest.mark.parametrize("model_class", [mm.MobileNetV1ImageProcessor, mm.MobileNetV2ImageProcessor])
def test_transformers_on_pil_is_equal_to_the_bit(model_class) -> None:
    twins.import_torch()
    report = compare_pixels(model_class(**SMALL), PICTURE)
    rows = {row.name: row for row in report.pixels}
    assert report.agrees and report.first_difference is None and report.diagnosis is None
    assert rows["transformers, PIL"].is_equal is True
    by_torchvision = rows["transformers, torchvision"]
    assert by_torchvision.note == "torchvision is not installed" or by_torchvision.max_levels < 1.01


@pytest.mark.crosscheck
def test_a_setting_that_transformers_lacks_is_named() -> None:
    twins.import_torch()
    report = compare_pixels(mm.MobileNetV1ImageProcessor(**SMALL, resize_method="tf1_bilinear"), PICTURE)
    assert report.first_difference == "transformers, PIL"
    assert report.diagnosis == "settings: transformers does not know resize_method"
    assert {row.name: row.is_equal for row in report.pixels}["TensorFlow 1, bilinear"] is True


@pytest.mark.crosscheck
def test_a_real_photograph(test_data: Path) -> None:
    twins.import_torch()
    processor = mm.AutoImageProcessor.from_pretrained(test_data / "models/huggingface/mobilenet_v1_0.25_128")
    assert compare_pixels(processor, test_data / "images/parrot.jpg").agrees
