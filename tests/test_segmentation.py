"""`segment`: the whole picture, at its own size, whatever form it comes in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile.imaging.drawing import draw_mask, draw_overlay


@pytest.fixture(scope="module")
def model(segmenter: Path) -> mm.MobileNetV2ForSemanticSegmentation:
    return mm.MobileNetV2ForSemanticSegmentation.from_pretrained(segmenter)


def test_the_whole_picture_is_looked_at(model: mm.MobileNetV2ForSemanticSegmentation, photos: Path) -> None:
    found = mm.segment(photos / "a.png", model)
    assert found.classes.shape == (50, 40) and found.classes.dtype == np.int64 and found.photo.size == (40, 50)
    with Image.open(photos / "a.png") as photo:
        whole = model.processor(photo, do_center_crop=False, size={"height": 32, "width": 48}, return_tensors="np")
    (expected,) = model.processor.post_process_semantic_segmentation(model(**whole), target_sizes=[(50, 40)])
    assert np.array_equal(found.classes, expected) and len(np.unique(expected)) > 1
    assert [row["label"] for row in found.shares] == [model.id2label[row["index"]] for row in found.shares]
    assert sum(row["share"] for row in found.shares) == pytest.approx(1)
    assert (
        np.array_equal(np.asarray(found.mask()), expected) and found.mask().tobytes() == draw_mask(expected).tobytes()
    )
    assert found.class_map.dtype == np.uint8
    assert found.overlay(0.5, legend=False).tobytes() == draw_overlay(found.photo, expected, 0.5).tobytes()
    assert found.overlay().size == found.photo.size, "too narrow for a legend"
    drawn = mm.segment(found.photo.resize((240, 50)), model).overlay()
    assert drawn.width == 240 and drawn.height > 50, "the legend stands below"
    assert repr(found).startswith("Segmentation(50 x 40: ") and len(repr(found)) < 200


def test_every_form_of_a_picture_gives_one_result(
    model: mm.MobileNetV2ForSemanticSegmentation, photos: Path, segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photos / "a.png"
    expected = mm.segment(str(path), model).classes
    with Image.open(path) as photo:
        pixels = np.asarray(photo.convert("RGB"))
        exif = Image.Exif()
        exif[0x0112] = 3
        stream = io.BytesIO()
        photo.rotate(180).save(stream, "PNG", exif=exif)
        for form in (photo, pixels, path.read_bytes(), Image.open(stream)):
            assert np.array_equal(mm.segment(form, model).classes, expected)
    assert np.array_equal(mm.segment(path, segmenter).classes, expected)
    monkeypatch.setenv("MINIMOBILE_MODEL", str(segmenter))
    assert np.array_equal(mm.segment(path).classes, expected)


def test_misuse_is_one_sentence(
    model: mm.MobileNetV2ForSemanticSegmentation, photos: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINIMOBILE_MODEL", raising=False)
    with pytest.raises(mm.InputError, match=r"got none; name one, or set \$MINIMOBILE_MODEL"):
        mm.segment(photos / "a.png")
    with pytest.raises(mm.InputError, match="semantic segmentation, got a MobileNetV1ForImageClassification"):
        mm.segment(photos / "a.png", classifier)
    monkeypatch.setenv("MINIMOBILE_MODEL", str(classifier))
    with pytest.raises(mm.InputError, match=r"^\$MINIMOBILE_MODEL: model: expected one for semantic segmentation"):
        mm.segment(photos / "a.png")
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), None, 3):
        with pytest.raises(mm.InputError, match=r"a PIL image or an array|expected an array"):
            mm.segment(wrong, model)
    bare = mm.MobileNetV2ForSemanticSegmentation(model.config)
    with pytest.raises(mm.InputError, match=r"add a preprocessor_config\.json"):
        mm.segment(photos / "a.png", bare)


@pytest.mark.crosscheck
def test_a_real_network_finds_the_bird_as_large_as_it_is(test_data: Path) -> None:
    network = test_data / "models" / "huggingface" / "deeplabv3_mobilenet_v2_0.5_257"
    shares = {
        row["label"]: row["share"] for row in mm.segment(test_data / "images" / "bird_segmentation.bmp", network).shares
    }
    with Image.open(test_data / "images" / "bird_segmentation_mask.bmp") as truth:
        true_share = (np.asarray(truth) == 3).mean()
    assert shares["bird"] == pytest.approx(true_share, abs=0.02)
