"""Each school's pictures: by hand, and equal to the bit to TensorFlow's, Keras', torchvision's and timm's steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frameworks
import numpy as np
import pytest
from drawn import draw
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from schools import EDGES, SEGMENTER, V1, V2, processor_of, with_school

import minimobile
from minimobile.errors import InputError
from minimobile.formats import read
from minimobile.formats.dialects import DIALECTS, processor_settings
from minimobile.imaging import transforms
from minimobile.imaging.image_processing import MobileNetV1ImageProcessor
from tests.conftest import Run

SHAPES = ((480, 640), (500, 375), (333, 501), (97, 31), (1, 1), (513, 200), (224, 224))


def pixels_of(processor: Any, picture: Any) -> np.ndarray:
    """Return pixel values (H, W, C), as most of the schools write them."""
    return np.moveaxis(
        processor(picture, return_tensors="np", input_data_format="channels_last").pixel_values[0], 0, -1
    )


def test_slim_s_pictures_by_hand() -> None:
    # 16 columns: the first and the last go. 14 become 7 by taking every second, for there is no antialiasing.
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 1, 3))
    found = pixels_of(processor_of("slim", V1, (7, 7)), ramp)
    unit = np.arange(10, 150, 20).astype(np.float32) * np.float32(1 / 255)
    assert np.array_equal(found[3, :, 1], (unit - np.float32(0.5)) * np.float32(2))


def test_face_api_s_pictures_by_hand() -> None:
    # A 2 x 4 picture becomes 4 x 8 at the top left of a canvas of 8 x 8; below it is black.
    picture = np.repeat(np.array([[[0], [10], [20], [30]], [[100], [110], [120], [130]]], np.uint8), 3, axis=2)
    found = pixels_of(processor_of("face-api", "MobileNetV1ForObjectDetection", (8, 8)), picture)
    assert np.array_equal(found[4:], np.full((4, 8, 3), -1, np.float32))
    unit = np.array([0, 5, 10, 15, 20, 25, 30, 30], np.float32)  # TensorFlow 1's: the last one has no neighbour
    expected = np.stack([unit, unit + 50, unit + 100, unit + 100]) * np.float32(2 / 255) - np.float32(1)
    np.testing.assert_allclose(found[:4, :, 0], expected, atol=1e-6)


def test_deeplab_s_pictures_by_hand() -> None:
    # A 2 x 3 picture becomes 6 x 9 at the top left of 9 x 9: ends stay ends. The grey below it is zero.
    picture = np.repeat(np.array([[[0], [10], [20]], [[100], [110], [120]]], np.uint8), 3, axis=2)
    found = pixels_of(processor_of("deeplab", SEGMENTER, (9, 9)), picture)
    assert found.shape == (9, 9, 3)
    assert np.array_equal(found[6:], np.zeros((3, 9, 3), np.float32))
    expected = np.array([[0, 20], [100, 120]], np.float32) * np.float32(2 / 255) - np.float32(1)
    assert np.array_equal(found[[0, 0, 5, 5], [0, 8, 0, 8], 0].reshape(2, 2), expected)
    np.testing.assert_allclose(found[0, :, 0], np.linspace(0, 20, 9) * 2 / 255 - 1, atol=1e-7)


def test_keras_pictures_by_hand() -> None:
    picture = draw(50, 70)
    found = pixels_of(processor_of("keras", V1, (32, 32)), picture)
    nearest = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.NEAREST)).astype(np.float32)
    assert np.array_equal(found, nearest / np.float32(127.5) - np.float32(1))


def test_torchvision_s_crop_rounds_half_to_even() -> None:
    row = np.tile(np.arange(9, dtype=np.uint8)[:, None], (1, 1, 3)).reshape(1, 9, 3)
    starts = {}
    for width in (8, 7, 6, 5, 4, 3, 2):
        processor = MobileNetV1ImageProcessor(
            do_resize=False, do_rescale=False, do_normalize=False, crop_size=(1, width), crop_rounding="half_even"
        )
        starts[width] = int(pixels_of(processor, row)[0, 0, 0])
    assert starts == {8: 0, 7: 1, 6: 2, 5: 2, 4: 2, 3: 3, 2: 4}  # of 0.5, 1, 1.5, 2, 2.5, 3, 3.5


@given(EDGES, EDGES, st.integers(1, 30), st.integers(1, 30))
def test_the_part_of_an_enormous_picture_is_that_of_the_whole(height: int, width: int, edge: int, crop: int) -> None:
    """Where the resized whole would be enormous only the crop is computed; the rounding must be the same there."""
    processor = MobileNetV1ImageProcessor(size=edge, crop_size=crop, crop_rounding="half_even")
    picture = draw(height, width)
    expected = pixels_of(processor, picture)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "WHOLE_PIXELS", 0)
        assert np.array_equal(pixels_of(processor, picture), expected)


@given(EDGES, EDGES, EDGES, EDGES, st.sampled_from(list(DIALECTS)), st.sampled_from([V1, V2, SEGMENTER]))
def test_any_picture_comes_to_the_network_s_size(
    height: int, width: int, rows: int, columns: int, dialect: str, architecture: str
) -> None:
    processor = processor_of(dialect, architecture, (rows, columns))
    picture = draw(height, width)
    try:
        found = pixels_of(processor, picture)
    except InputError as error:  # a line of 1 x 40 has no height on a canvas of 20 x 20
        assert "enlarge size" in str(error)
        assert min(rows / height, columns / width) * min(height, width) < 1
        return
    assert found.shape == (rows, columns, 3)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(pixels_of(processor, Image.fromarray(picture)), found)
    if DIALECTS[dialect].pixels.mean[0] != 0.485:
        assert np.abs(found).max() <= 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("architecture", [V1, SEGMENTER])
def test_one_colour_stays_one_colour(dialect: str, architecture: str) -> None:
    picture = np.full((30, 47, 3), 127, np.uint8)
    found = pixels_of(processor_of(dialect, architecture, (32, 32)), picture)
    canvas = processor_of(dialect, architecture, (32, 32)).canvas_size
    inside = found[:20] if canvas else found  # 30 x 47 becomes 20 x 32
    assert len(np.unique(inside[..., 0])) == 1


def test_one_channel_networks_take_the_grey_of_colours() -> None:
    grey = Image.fromarray(draw(40, 60)).convert("L")
    for dialect in DIALECTS:
        processor = processor_of(dialect, V1, (32, 32), channels=1)
        found = processor(grey, return_tensors="np").pixel_values
        assert found.shape == (1, 1, 32, 32)
        assert np.array_equal(processor(grey.convert("RGB"), return_tensors="np").pixel_values, found)


@pytest.fixture
def grey_model(tmp_path: Path) -> Path:
    """Return the directory of a random V1 of one channel that finds several labels at once."""
    config = minimobile.MobileNetV1Config(
        depth_multiplier=0.1, num_channels=1, id2label={0: "cat", 1: "dog"}, problem_type="multi_label_classification"
    )
    folder = tmp_path / "grey model"
    minimobile.MobileNetV1ForImageClassification(config, seed=1).save_pretrained(folder)
    values = processor_settings(DIALECTS["keras"], V1, (32, 32), 1)
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def test_a_one_channel_model_classifies_colour_and_grey(run: Run, grey_model: Path, tmp_path: Path) -> None:
    colour = Image.fromarray(draw(40, 50))
    pictures = {"colour.png": colour, "grey.png": colour.convert("L"), "palette.png": colour.quantize(16)}
    pictures |= {"alpha.png": colour.convert("RGBA"), "bits.png": colour.convert("1")}
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    paths = [tmp_path / name for name in pictures]
    code, out, _ = run("classify", *paths, "--model", grey_model, "--format", "json")
    assert code == 0, out
    found = [row["predictions"] for row in json.loads(out)]
    assert found[0] == found[1] == found[3]
    for row in found:
        for item in row:  # each label for itself: the sigmoid, not the softmax
            assert item["probability"] == pytest.approx(1 / (1 + np.exp(-item["logit"])), rel=1e-15)


@pytest.mark.crosscheck
@pytest.mark.parametrize("shape", SHAPES)
def test_slim_s_pictures_equal_tensorflow_s(shape: tuple[int, int]) -> None:
    tf = frameworks.tensorflow()
    picture = draw(*shape)
    for size in ((224, 224), (128, 160)):
        x = tf.image.central_crop(tf.image.convert_image_dtype(picture, tf.float32), 0.875)
        x = tf.compat.v1.image.resize_bilinear(x[None], size, align_corners=False)
        expected = tf.multiply(tf.subtract(x, 0.5), 2.0).numpy()[0]
        assert np.array_equal(pixels_of(processor_of("slim", V1, size), picture), expected)


@pytest.mark.crosscheck
@pytest.mark.parametrize("shape", SHAPES)
def test_deeplab_s_pictures_and_masks_equal_tensorflow_s(shape: tuple[int, int]) -> None:
    tf = frameworks.tensorflow()
    picture, (height, width) = draw(*shape), shape
    ratio = 513 / max(shape)
    valid = int(height * ratio), int(width * ratio)
    x = tf.compat.v1.image.resize_bilinear(tf.cast(picture, tf.float32)[None], valid, align_corners=True)
    x = tf.pad(x, [[0, 0], [0, 513 - valid[0]], [0, 513 - valid[1]], [0, 0]], constant_values=127.5)
    expected = ((2.0 / 255.0) * x - 1.0).numpy()[0]
    processor = processor_of("deeplab", SEGMENTER, (513, 513))
    assert np.array_equal(pixels_of(processor, picture), expected)

    logits = np.random.default_rng(5).standard_normal((1, 33, 33, 21)).astype(np.float32)
    scores = tf.compat.v1.image.resize_bilinear(logits, (513, 513), align_corners=True)
    cut = tf.argmax(scores, 3)[:, : valid[0], : valid[1], None]
    theirs = tf.compat.v1.image.resize_nearest_neighbor(cut, shape, align_corners=True).numpy()[0, ..., 0]
    (ours,) = processor.post_process_semantic_segmentation(np.moveaxis(logits, -1, 1), [shape])
    # TensorFlow rounds scores to float32 at every step, we at the end: classes may differ where two are as good.
    tops = np.sort(tf.compat.v1.image.resize_nearest_neighbor(
        scores[:, : valid[0], : valid[1]], shape, align_corners=True).numpy()[0], axis=-1)  # fmt: skip
    assert (tops[..., -1] - tops[..., -2])[ours != theirs].max(initial=0) < 1e-5
    assert (ours != theirs).mean() < 1e-4


@pytest.mark.crosscheck
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["rgb", "grayscale"])
def test_keras_pictures_equal_keras(shape: tuple[int, int], mode: str, tmp_path: Path) -> None:
    keras = frameworks.keras()
    path = tmp_path / "picture.png"
    Image.fromarray(draw(*shape)).save(path)
    loaded = keras.utils.load_img(path, color_mode=mode, target_size=(224, 192))
    expected = keras.applications.mobilenet.preprocess_input(keras.utils.img_to_array(loaded))
    assert expected.dtype == np.float32
    processor = processor_of("keras", V1, (224, 192), 3 if mode == "rgb" else 1)
    assert np.array_equal(pixels_of(processor, path), expected)


@pytest.mark.crosscheck
@pytest.mark.parametrize("dialect", ["torchvision", "torchvision-v2", "timm"])
@pytest.mark.parametrize("shape", [*SHAPES, (339, 256), (256, 341), (300, 457)])
def test_torch_s_pictures_equal_torch(dialect: str, shape: tuple[int, int]) -> None:
    """Equal torchvision's Resize, CenterCrop, ToTensor and Normalize, written out."""
    torch = pytest.importorskip("torch")
    picture = Image.fromarray(draw(*shape))
    edge = 232 if dialect.endswith("v2") else 256
    long = int(edge * max(shape) / min(shape))
    height, width = (edge, long) if shape[0] <= shape[1] else (long, edge)
    rule = Image.Resampling.BICUBIC if dialect == "timm" else Image.Resampling.BILINEAR
    top, left = int(round((height - 224) / 2.0)), int(round((width - 224) / 2.0))  # noqa: RUF046  # as it is there
    resized = picture.resize((width, height), rule).crop((left, top, left + 224, top + 224))
    x = torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = x.sub_(mean[:, None, None]).div_(std[:, None, None]).numpy()
    found = processor_of(dialect, V2, (224, 224))(picture, return_tensors="np").pixel_values[0]
    assert np.array_equal(found, expected)


@pytest.mark.crosscheck
@pytest.mark.parametrize(("name", "side"), [("mobilenet_v1_0.25_128", 128), ("mobilenet_v2_1.0_224", 224)])
@pytest.mark.parametrize("dialect", ["slim", "tflite", "keras"])
def test_pictures_of_the_weights_own_school_are_recognised(name: str, side: int, dialect: str, test_data: Path) -> None:
    model = with_school(read(test_data / "models" / "huggingface" / name), dialect, side)
    for picture, kinds in {"cat.bmp": ("Egyptian cat", "tabby, tabby cat"), "parrot.jpg": ("macaw",)}.items():
        (best,) = minimobile.classify(test_data / "images" / picture, model=model, top=1)
        assert best["label"] in kinds, (picture, best)
