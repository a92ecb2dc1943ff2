"""Each school's masks: where its picture lay, by hand, and equal to DeepLab's own export."""

from __future__ import annotations

import json
from pathlib import Path

import frameworks
import numpy as np
import pytest
from drawn import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from schools import EDGES, SEGMENTER, V2, processor_of, with_school

import minimobile
from minimobile.errors import InputError
from minimobile.formats import read
from minimobile.formats.dialects import DIALECTS, processor_settings
from minimobile.models.segmentation import find_classes
from tests.conftest import Run


def test_deeplab_s_masks_by_hand() -> None:
    # A picture 4 x 8 lies in the upper half of the canvas 8 x 8; what the network says of the lower half is cut off.
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[0, 1, :, 0] = [3, 0]
    logits[0, 2, :, 1] = [3, 0]
    logits[0, 0, 1] = 9
    processor = processor_of("deeplab", SEGMENTER, (8, 8))
    (found,) = processor.post_process_semantic_segmentation(logits, [(4, 8)])
    # Row i lies i/7 of the way down: class 0 with 9 i / 7 passes 3 (1 - i / 7) * (share across) from i = 2 on.
    assert found.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 2, 2, 2, 2], [0] * 8, [0] * 8]
    (larger,) = processor.post_process_semantic_segmentation(logits, [(8, 16)])
    assert larger.shape == (8, 16)
    assert larger[0, 0] == 1
    assert larger[0, -1] == 2


@settings(max_examples=40)
@given(EDGES, EDGES, st.sampled_from(["deeplab", "tflite"]))
def test_masks_have_the_picture_s_size_and_scores_agree(height: int, width: int, dialect: str) -> None:
    processor = processor_of(dialect, SEGMENTER, (41, 41))
    logits = np.random.default_rng(height).standard_normal((1, 4, 6, 6)).astype(np.float32)
    (found,) = processor.post_process_semantic_segmentation(logits, [(height, width)])
    (scored,) = processor.post_process_semantic_segmentation(logits, [(height, width)], return_segmentation_scores=True)
    assert found.shape == (height, width)
    assert found.dtype == np.int64
    assert scored.segmentation_scores.shape == (4, height, width)
    assert np.array_equal(scored.segmentation, found)


@given(EDGES, EDGES)
def test_a_mask_lies_where_its_picture_lay(height: int, width: int) -> None:
    """A network that copies its input finds each picture's own brightest half, whatever the picture's shape."""
    processor = processor_of("deeplab", SEGMENTER, (41, 41))
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = 255
    (found,) = processor.post_process_semantic_segmentation(
        as_logits(processor(picture, return_tensors="np", input_data_format="channels_last").pixel_values),
        [(height, width)],
    )
    wrong = np.abs(found - (picture[..., 0] == 255)).sum(axis=1)
    assert wrong.max() <= 1, "at most the column at the edge"


def as_logits(pixel_values: np.ndarray) -> np.ndarray:
    """Return the scores "dark" and "bright" of every pixel."""
    return np.concatenate([-pixel_values[:, :1], pixel_values[:, :1]], axis=1)


def test_sizes_that_cannot_have_been_on_the_canvas_are_refused() -> None:
    processor = processor_of("deeplab", SEGMENTER, (8, 8))
    processor.do_resize = False
    with pytest.raises(InputError, match="pictures of at most 8x8 pixels, as canvas_size says, got 9x8"):
        processor.post_process_semantic_segmentation(np.zeros((1, 2, 2, 2)), [(9, 8)])
    assert processor.post_process_semantic_segmentation(np.zeros((1, 2, 2, 2)), [(8, 8)])[0].shape == (8, 8)
    assert processor.post_process_semantic_segmentation(np.zeros((1, 2, 3, 2)))[0].shape == (3, 2)


def test_maps_of_classes_move_with_their_pictures() -> None:
    picture, ids = draw(20, 30), np.random.default_rng(1).integers(0, 21, (20, 30))
    both = processor_of("deeplab", SEGMENTER, (45, 45))(picture, ids, return_tensors="np")
    assert both.labels.shape == (1, 45, 45)
    assert (both.labels[0, 30:] == 255).all()
    assert set(np.unique(both.labels[0, :30])) <= set(range(21))
    corners = [both.labels[0, i, j] for i in (0, 29) for j in (0, 44)]
    assert corners == [ids[0, 0], ids[0, -1], ids[-1, 0], ids[-1, -1]]
    cut = processor_of("slim", V2, (14, 14))(draw(16, 16), np.arange(256).reshape(16, 16), return_tensors="np")
    assert np.array_equal(cut.labels[0], np.arange(256).reshape(16, 16)[1:15, 1:15])


def test_segment_keeps_the_aspect_on_a_canvas(run: Run, segmenter: Path, tmp_path: Path) -> None:
    settled = processor_settings(DIALECTS["deeplab"], SEGMENTER, (33, 33))
    (segmenter / "preprocessor_config.json").replace(tmp_path / "kept.json")
    try:
        (segmenter / "preprocessor_config.json").write_text(json.dumps(settled))
        Image.fromarray(draw(20, 50)).save(tmp_path / "wide.png")
        assert run("segment", tmp_path / "wide.png", "--model", segmenter, "--out", tmp_path).code == 0
        model = minimobile.load(segmenter)
    finally:
        (tmp_path / "kept.json").replace(segmenter / "preprocessor_config.json")
    inputs = model.processor(tmp_path / "wide.png", return_tensors="np")
    assert (inputs.pixel_values[0, :, 13:] == 0).all(), "20 x 50 becomes 13 x 33"
    (expected,) = model.processor.post_process_semantic_segmentation(model(**inputs), [(20, 50)])
    with Image.open(tmp_path / "wide.mask.png") as mask:
        assert np.array_equal(np.asarray(mask), expected)


@pytest.mark.crosscheck
@pytest.mark.parametrize("dialect", ["deeplab", "tflite"])
def test_masks_of_real_pictures(dialect: str, test_data: Path) -> None:
    checkpoint = read(test_data / "models" / "huggingface" / "deeplabv3_mobilenet_v2_0.5_257")
    model = with_school(checkpoint, dialect, 257)
    images = test_data / "images"
    with Image.open(images / "bird_segmentation_mask.bmp") as mask:
        truth = np.asarray(mask)
    with Image.open(images / "bird_segmentation.bmp") as photo:
        assert iou(find_classes(model, photo.convert("RGB")), truth, 3) > 0.84
    # The example of the TFLite library, whose golden mask is that of this network: equal, pixel for pixel.
    with Image.open(images / "segmentation_golden_rotation0.png") as mask:
        golden = np.asarray(mask) // 10
    with Image.open(images / "segmentation_input_rotation0.jpg") as photo:
        found = find_classes(model, photo.convert("RGB"))
    assert [round(iou(found, golden, number), 3) for number in np.unique(golden)] == [1, 1, 1]


@pytest.mark.crosscheck
@pytest.mark.parametrize("box", [(0, 0, 513, 300), (60, 0, 360, 513), (0, 0, 513, 513)])
def test_deeplab_s_masks_of_any_shape_equal_its_own_export(box: tuple[int, ...], test_data: Path) -> None:
    """Equal what DeepLab's exported graph does around the network, in TensorFlow."""
    tf = frameworks.tensorflow()
    model = with_school(read(test_data / "models" / "huggingface" / "deeplabv3_mobilenet_v2_0.5_257"), "deeplab", 257)
    with Image.open(test_data / "images" / "bird_segmentation.bmp") as whole:
        photo = whole.convert("RGB").crop(box)
    height, width = photo.height, photo.width
    valid = tuple(int(edge * (257 / max(height, width))) for edge in (height, width))
    image = tf.cast(np.asarray(photo), tf.float32)[None]
    x = tf.compat.v1.image.resize_bilinear(image, valid, align_corners=True)
    x = tf.pad(x, [[0, 0], [0, 257 - valid[0]], [0, 257 - valid[1]], [0, 0]], constant_values=127.5)
    logits = model(np.moveaxis(((2.0 / 255.0) * x - 1.0).numpy(), -1, 1)).logits
    scores = tf.compat.v1.image.resize_bilinear(np.moveaxis(logits, 1, -1), (257, 257), align_corners=True)
    cut = tf.argmax(scores, 3)[:, : valid[0], : valid[1], None]
    expected = tf.compat.v1.image.resize_nearest_neighbor(cut, (height, width), align_corners=True).numpy()[0, ..., 0]
    assert (find_classes(model, photo) != expected).mean() < 1e-4  # ties of float32


def iou(found: np.ndarray, truth: np.ndarray, number: int) -> float:
    return float(((found == number) & (truth == number)).sum() / ((found == number) | (truth == number)).sum())
