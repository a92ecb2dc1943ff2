"""Segmentation maps as labels and as results: by hand, in every form, at every size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn import draw
from PIL import Image

from minimobile.errors import InputError
from minimobile.imaging.image_processing import (
    MobileNetV1ImageProcessor,
    MobileNetV2ImageProcessor,
)


def test_segmentation_maps_by_hand() -> None:
    labels = np.array([[0, 1], [254, 255]], np.uint8)
    processor = MobileNetV2ImageProcessor(size=4, crop_size=6)
    out = processor(draw(2, 2), labels, return_tensors="np")
    assert out.labels.dtype == np.int64
    assert out.labels[0].tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 254, 254, 255, 255, 0],
        [0, 254, 254, 255, 255, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    reduced = processor(draw(2, 2), labels, reduce_labels=True, do_resize=False, do_center_crop=False).labels[0]
    assert reduced.tolist() == [[255, 0], [253, 255]]


def test_segmentation_maps_in_every_form(tmp_path: Path) -> None:
    labels = draw(20, 30)[..., 0] % 21
    palette = Image.fromarray(labels).convert("L")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    assert palette.mode == "P"
    palette.save(tmp_path / "map.png")
    processor = MobileNetV2ImageProcessor(size=25, crop_size=16)
    picture = draw(20, 30)
    expected = processor(picture, labels, return_tensors="np").labels
    forms = [palette, tmp_path / "map.png", [labels], labels[None], labels.astype(np.int32), labels.astype(float)]
    for form in forms:
        assert np.array_equal(processor(picture, form, return_tensors="np").labels, expected)
    large = processor(picture, labels.astype(np.int64) + 1000, return_tensors="np").labels
    assert np.array_equal(large, expected + 1000)


def test_segmentation_maps_that_do_not_fit() -> None:
    processor = MobileNetV2ImageProcessor()
    with pytest.raises(InputError, match="expected 1 segmentation maps, got 2"):
        processor(draw(8, 8), np.zeros((2, 8, 8), int))
    with pytest.raises(
        InputError, match=r"expected class ids \(H, W\), as a palette or grey image has them, got \(8, 8, 3\)"
    ):
        processor(draw(8, 8), Image.fromarray(draw(8, 8)))
    with pytest.raises(InputError, match="whole numbers, got fractions"):
        processor(draw(8, 8), np.full((8, 8), 0.5))
    with pytest.raises(TypeError):
        MobileNetV1ImageProcessor()(draw(8, 8), np.zeros((8, 8), int))  # type: ignore[call-arg]


def test_post_processing() -> None:
    logits = np.zeros((2, 3, 2, 2), np.float32)
    logits[0, 2, :, 1] = 1
    logits[1, 1] = 1
    processor = MobileNetV2ImageProcessor()
    maps = processor.post_process_semantic_segmentation(SimpleNamespace(logits=logits))
    assert [classes.tolist() for classes in maps] == [[[0, 2], [0, 2]], [[1, 1], [1, 1]]]
    maps = processor.post_process_semantic_segmentation({"logits": logits}, target_sizes=[(1, 4), (3, 5)])
    assert [(classes.shape, classes.dtype) for classes in maps] == [((1, 4), np.int64), ((3, 5), np.int64)]
    assert maps[0].tolist() == [[0, 2, 2, 2]]  # class 2 rises as 0, 1/4, 3/4, 1, class 0 stays at 0
    many = np.zeros((1, 257, 2, 2), np.float32)
    many[0, 256, 1] = 1  # a class that a byte does not hold
    for sizes in (None, [(2, 2)]):
        (found,) = processor.find_class_maps(many, sizes)
        assert found.tolist() == [[0, 0], [256, 256]]
    scored = processor.post_process_semantic_segmentation(logits, [(1, 4), (3, 5)], return_segmentation_scores=True)
    assert scored[0].segmentation_scores[2].tolist() == [[0, 0.25, 0.75, 1]]
    assert all(np.array_equal(record.segmentation, classes) for record, classes in zip(scored, maps, strict=True))


@pytest.mark.parametrize(
    "sizes",
    [[(4, 4)], [(4, 4)] * 3, [(0, 4), (4, 4)], [4, 4], [(4.5, 4), (4, 4)], "ab", [(4, 4), (4,)], [(4, 4), (10**9, 4)]],
)
def test_post_processing_refuses_sizes_that_do_not_fit(sizes: Any) -> None:
    with pytest.raises(InputError, match=r"post_process_semantic_segmentation: .*"):
        MobileNetV2ImageProcessor().post_process_semantic_segmentation(np.zeros((2, 3, 2, 2)), target_sizes=sizes)
    with pytest.raises(InputError, match=r"expected logits \(N, C, h, w\), got \(3, 2, 2\)"):
        MobileNetV2ImageProcessor().post_process_semantic_segmentation(np.zeros((3, 2, 2)))
