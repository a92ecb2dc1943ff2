from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minimobile.errors import ConfigError, FormatError, InputError, MinimobileError, UnavailableError
from minimobile.formats import hdf5, hub
from minimobile.formats.checkpoint import Checkpoint
from minimobile.imaging import transforms
from minimobile.imaging.batches import BatchFeature
from minimobile.imaging.image_processing import (
    AutoImageProcessor,
    MobileNetV1FeatureExtractor,
    MobileNetV1ImageProcessor,
    MobileNetV2FeatureExtractor,
    MobileNetV2ImageProcessor,
)
from minimobile.imaging.pictures import bring_upright
from minimobile.imaging.transforms import center_crop, resized_size
from minimobile.networks.config import MobileNetV1Config

PROCESSORS = (MobileNetV1ImageProcessor, MobileNetV2ImageProcessor)
PLAIN = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}


def draw(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_photo_becomes_pixel_values(kind: type[MobileNetV1ImageProcessor]) -> None:
    photo = Image.fromarray(draw(480, 640))
    inputs = kind()(photo, return_tensors="np")
    # Step by step: short edge 256, the long one truncated; middle 224x224; x / 127.5 - 1 in three roundings.
    resized = np.asarray(photo.resize((341, 256), Image.Resampling.BILINEAR))
    middle = resized[16:240, 58:282].transpose(2, 0, 1)
    scaled = (middle.astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = (scaled - np.float32(0.5)) / np.float32(0.5)
    assert list(inputs) == ["pixel_values"]
    assert inputs.pixel_values.dtype == np.float32
    assert np.array_equal(inputs["pixel_values"], expected[None])


def test_all_forms_of_one_picture_give_one_result(tmp_path: Path) -> None:
    pixels = draw(40, 50)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    channels_first = pixels.transpose(2, 0, 1)
    processor = MobileNetV2ImageProcessor(size=30, crop_size=24)
    expected = processor(pixels, return_tensors="np").pixel_values
    assert expected.shape == (1, 3, 24, 24)
    forms = [path, str(path), path.read_bytes(), Image.fromarray(pixels), channels_first, pixels[None], [pixels]]
    forms += [[[pixels]], (channels_first,), pixels.astype(np.float32), pixels.astype(np.int64), [str(path)]]
    for form in forms:
        assert np.array_equal(processor(form, return_tensors="np").pixel_values, expected)
    for batch in ([path, pixels], [[pixels], [path]], np.stack([pixels, pixels]), [np.stack([pixels, pixels])]):
        assert np.array_equal(processor(batch, return_tensors="np").pixel_values, np.concatenate([expected] * 2))


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (480, 640, {"shortest_edge": 256}, (256, 341)),
        (640, 480, {"shortest_edge": 256}, (341, 256)),
        (333, 500, {"shortest_edge": 256}, (256, 384)),
        (1, 10000, {"shortest_edge": 256}, (256, 2560000)),
        (480, 640, {"height": 3, "width": 9}, (3, 9)),
        (100, 300, {"shortest_edge": 50, "longest_edge": 120}, (40, 120)),
        (100, 300, {"shortest_edge": 50, "longest_edge": 200}, (50, 150)),
        (100, 400, {"max_height": 50, "max_width": 60}, (15, 60)),
    ],
)
def test_resized_sizes_by_hand(height: int, width: int, size: dict[str, int], expected: tuple[int, int]) -> None:
    assert resized_size(height, width, size) == expected


def test_crop_and_padding_by_hand() -> None:
    # 5x7 into 8x8: the odd rest of 3 rows and 1 column goes above and to the left. Source: transformers' PIL path.
    padded = center_crop(np.ones((1, 5, 7), np.uint8), 8, 8)
    assert np.argwhere(padded[0])[[0, -1]].tolist() == [[2, 1], [6, 7]]
    assert padded.sum() == 35
    # 5x7 cut to 2x4: one row above and two below, one column left and two right.
    cut = center_crop(np.arange(35).reshape(1, 5, 7), 2, 4)
    assert cut[0].tolist() == [[8, 9, 10, 11], [15, 16, 17, 18]]
    both = center_crop(np.arange(35).reshape(1, 5, 7), 7, 3)
    assert both[0, :, 0].tolist() == [0, 2, 9, 16, 23, 30, 0]


def test_zero_padding_comes_before_normalisation() -> None:
    values = MobileNetV1ImageProcessor(do_resize=False, crop_size=4)(np.full((2, 2, 3), 255, np.uint8))
    assert values.pixel_values[0][0].tolist() == [[-1, -1, -1, -1], [-1, 1, 1, -1], [-1, 1, 1, -1], [-1, -1, -1, -1]]


def test_floats_in_0_to_1_are_resized_in_bytes() -> None:
    picture = np.full((6, 6, 3), 0.5)
    values = MobileNetV1ImageProcessor(**{**PLAIN, "do_resize": True}, size=2)(picture).pixel_values[0]
    assert values.dtype == np.float32
    assert np.array_equal(values, np.full((3, 2, 2), np.float32(127 * (1 / 255))))  # 127.5 is cut off to 127
    with pytest.raises(
        InputError, match=r"whole numbers in 0\.\.255 or floats in 0\.\.1, got float64 from 0\.5 to 3\.5"
    ):
        MobileNetV1ImageProcessor()(np.array([0.5, 3.5, 1]).reshape(1, 1, 3).repeat(9, 0).repeat(9, 1))


def test_nan_passes_without_resizing_and_is_refused_with_it() -> None:
    picture = np.full((5, 6, 3), 100.0)
    picture[2, 3, 1] = np.nan
    values = MobileNetV1ImageProcessor(do_resize=False, do_center_crop=False)(picture).pixel_values[0]
    assert np.argwhere(np.isnan(values)).tolist() == [[1, 2, 3]]
    with pytest.raises(InputError, match="to be resized, pixels must be"):
        MobileNetV1ImageProcessor()(picture)


def test_types_follow_the_steps() -> None:
    picture = draw(6, 7).astype(np.float64)
    processor = MobileNetV1ImageProcessor(**PLAIN)
    assert processor(draw(6, 7)).pixel_values[0].dtype == np.uint8
    assert processor(picture, do_normalize=True).pixel_values[0].dtype == np.float64
    assert processor(picture.astype(np.float16), do_normalize=True).pixel_values[0].dtype == np.float16
    assert processor(draw(6, 7), do_normalize=True).pixel_values[0].dtype == np.float32
    assert processor(picture, do_rescale=True).pixel_values[0].dtype == np.float32


def test_layouts() -> None:
    picture = draw(3, 9)  # 3 rows of 9 pixels: which 3 are the channels?
    processor = MobileNetV1ImageProcessor(**PLAIN)
    with pytest.raises(
        InputError, match=r"either end of the shape may be the channels .* \(3, 9, 3\); pass input_data"
    ):
        processor(picture)
    values = processor(picture, input_data_format="channels_last")
    assert np.array_equal(values.pixel_values[0], picture.transpose(2, 0, 1))
    assert np.array_equal(processor(picture, input_data_format="channels_first").pixel_values[0], picture)
    last = processor(picture, input_data_format="channels_last", data_format="channels_last", return_tensors="np")
    assert np.array_equal(last.pixel_values, picture[None])
    with pytest.raises(InputError, match="expected data_format to be one of channels_first, channels_last, got 'NHWC'"):
        processor(picture, data_format="NHWC")


def test_pil_images_of_any_mode_become_rgb() -> None:
    rgb = Image.fromarray(draw(9, 9))
    processor = MobileNetV1ImageProcessor(**PLAIN)
    for mode in ("RGBA", "L", "LA", "P", "1", "CMYK"):
        assert processor(rgb.convert(mode)).pixel_values[0].shape == (3, 9, 9), mode
    assert processor(rgb.convert("LA"), do_convert_rgb=False).pixel_values[0].shape == (2, 9, 9)
    palette = rgb.convert("P")
    assert np.array_equal(processor(palette, do_convert_rgb=False).pixel_values[0][0], np.asarray(palette))
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert processor(clear).pixel_values[0][:, 0, 0].tolist() == [255, 0, 0]
    assert processor(clear, do_convert_rgb=True).pixel_values[0][:, 0, 0].tolist() == [255, 255, 255]
    grey = MobileNetV1ImageProcessor(image_mean=[0.5], image_std=[0.5])(rgb, return_tensors="np")
    assert grey.pixel_values.shape == (1, 1, 224, 224)


def test_a_file_is_turned_by_its_exif_orientation_and_an_image_object_is_not() -> None:
    pixels, exif = draw(2, 3), Image.Exif()
    exif[0x0112] = 3
    files = []
    for stored in (pixels, pixels[..., 0]):
        stream = io.BytesIO()
        Image.fromarray(stored).save(stream, "PNG", exif=exif)
        files.append(stream.getvalue())
    photo, classes = (Image.open(io.BytesIO(file), formats=["PNG"]) for file in files)
    processor = MobileNetV2ImageProcessor(**PLAIN, data_format="channels_last")
    as_stored, upright = processor(photo, classes), processor(files[0], files[1])
    assert np.array_equal(as_stored.pixel_values[0], pixels)  # as transformers' processors have it
    assert np.array_equal(as_stored.labels[0], pixels[..., 0])
    assert np.array_equal(upright.pixel_values[0], pixels[::-1, ::-1])
    assert np.array_equal(upright.labels[0], pixels[::-1, ::-1, 0])
    assert np.array_equal(processor(bring_upright(photo)).pixel_values[0], pixels[::-1, ::-1])
    assert bring_upright("photo.jpg") == "photo.jpg"


def test_pictures_of_1x1_and_1x10000() -> None:
    processor = MobileNetV1ImageProcessor()
    values = processor(Image.new("RGB", (1, 1), (255, 0, 51)), return_tensors="np").pixel_values
    assert values.shape == (1, 3, 224, 224)
    assert np.unique(values).tolist() == sorted({1.0, -1.0, float(np.float32(51 * (1 / 255)) / np.float32(0.5) - 1)})
    strip = np.random.default_rng(0).integers(0, 256, (1, 10000, 3), dtype=np.uint8)
    start = time.perf_counter()
    for picture in (strip, strip.transpose(1, 0, 2)):
        values = processor(Image.fromarray(np.ascontiguousarray(picture)), return_tensors="np").pixel_values
        assert values.shape == (1, 3, 224, 224)
        assert len(np.unique(values)) > 20
    assert time.perf_counter() - start < 2  # the whole would have 655 million pixels
    with pytest.raises(InputError, match="256x2560000 would make more than 268435456 pixels"):
        processor(Image.fromarray(strip), do_center_crop=False)


def test_the_window_of_an_enormous_resize_is_the_middle_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = draw(30, 41)
    for resample in Image.Resampling:
        for crop in ((20, 30), (50, 10), (90, 200)):
            processor = MobileNetV1ImageProcessor(size=47, crop_size=crop, resample=resample)
            whole = processor(picture, return_tensors="np").pixel_values
            monkeypatch.setattr(transforms, "WHOLE_PIXELS", 0)
            assert np.array_equal(processor(picture, return_tensors="np").pixel_values, whole)
            monkeypatch.undo()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.zeros((8, 8)),
            r"images: expected an array \(H, W, C\) or \(C, H, W\), or a batch of them, got shape \(8, 8\)",
        ),
        (np.zeros(8), "or a batch of them"),
        (np.zeros((1, 1, 3, 8, 8)), "or a batch of them"),
        (np.zeros((8, 8, 2), np.uint8), "neither end of the shape is the channels"),
        (np.zeros((8, 8, 4), np.uint8), r"expected pictures of 3 channels \(image_mean has 3 values\), got 4"),
        (np.zeros((8, 8, 1), np.uint8), r"expected pictures of 3 channels \(image_mean has 3 values\), got 1"),
        (np.zeros((0, 8, 3), np.uint8), r"at least 1x1 pixels, got shape \(0, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "expected at least one picture, got none"),
        ([], "expected at least one picture, got none"),
        (np.zeros((8, 8, 3), object), "integers, floats or booleans, got object"),
        (np.zeros((8, 8, 3), complex), "integers, floats or booleans, got complex128"),
        (np.full((8, 8, 3), "a"), "integers, floats or booleans, got <U1"),
        (np.full((8, 8, 3), 300), r"whole numbers in 0\.\.255 or floats in 0\.\.1, got int64 from 300 to 300"),
        (None, "got NoneType"),
        ([draw(8, 8), 7], r"images\[1\]: expected a path, bytes, a PIL image or an array, got int"),
        ([[0.5, 0.5], [0.5, 0.5]], r"images\[0\]\[0\]: .* got float"),
        ({"a": 1}, "got dict"),
        ([[[[[[draw(8, 8)]]]]]], "expected lists nested at most 4 deep"),
    ],
)
def test_refuses_what_is_no_picture(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MobileNetV2ImageProcessor()(value)


def test_names_the_picture_that_is_broken(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("words")
    with pytest.raises(FormatError, match=r"broken\.jpg"):
        MobileNetV1ImageProcessor()([draw(8, 8), broken])


def test_never_changes_or_hands_out_the_callers_arrays() -> None:
    picture, labels = draw(8, 9), draw(8, 9)[..., 0]
    before = picture.copy(), labels.copy()
    processor = MobileNetV2ImageProcessor(**PLAIN, do_reduce_labels=True)
    for form in (picture, np.ascontiguousarray(picture.transpose(2, 0, 1)), picture[None]):
        values = processor(form, labels)
        assert not np.shares_memory(values.pixel_values[0], form)
        assert values.pixel_values[0].flags.writeable
    assert np.array_equal(picture, before[0])
    assert np.array_equal(labels, before[1])


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


def test_return_tensors() -> None:
    processor = MobileNetV1ImageProcessor(do_center_crop=False, size=20)
    pictures = [draw(20, 30), draw(30, 20)]
    assert [values.shape for values in processor(pictures).pixel_values] == [(3, 20, 30), (3, 30, 20)]
    with pytest.raises(
        InputError, match=r"expected pictures of one size, got \[\(3, 20, 30\), \(3, 30, 20\)\]; crop them"
    ):
        processor(pictures, return_tensors="np")
    with pytest.raises(InputError, match="expected return_tensors to be one of np, pt, tf, jax, got 'mx'"):
        processor(pictures, return_tensors="mx")


def test_absent_frameworks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in {"pt": "torch", "tf": "tensorflow", "jax": "jax"}.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(
            UnavailableError, match=f"{module} is not installed; install it, or use return_tensors='np'"
        ):
            MobileNetV1ImageProcessor()("never-opened.png", return_tensors=name)


def test_no_framework_is_imported() -> None:
    code = (
        "import sys, numpy as np; from minimobile.imaging.image_processing import MobileNetV2ImageProcessor as P; "
        "P()(np.zeros((9, 9, 3), np.uint8), return_tensors='np'); "
        "assert not {'torch', 'tensorflow', 'jax', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_padding_of_v1() -> None:
    processor = MobileNetV1ImageProcessor(**PLAIN, do_pad=True)
    values = processor([np.ones((2, 5, 3)), np.ones((4, 3, 3))], input_data_format="channels_last", return_tensors="np")
    assert values.pixel_values.shape == (2, 3, 4, 5)
    assert values.pixel_values.sum(axis=(1, 2, 3)).tolist() == [30, 36]
    assert processor(draw(8, 8), pad_size=(9, 10)).pixel_values[0].shape == (3, 9, 10)
    with pytest.raises(InputError, match="pad_size 5x5 is smaller than the picture, 8x8"):
        processor(draw(8, 8), pad_size=5)


def test_batch_feature_is_a_dictionary_with_attributes() -> None:
    feature = BatchFeature(pixel_values=1)
    assert dict(**feature) == {"pixel_values": 1}
    assert feature.pixel_values == 1
    with pytest.raises(AttributeError, match="no 'labels'; it holds pixel_values"):
        _ = feature.labels


def test_defaults_and_dictionary() -> None:
    expected = {
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
        "do_center_crop": True,
        "image_processor_type": "MobileNetV1ImageProcessor",
    }
    assert MobileNetV1ImageProcessor().to_dict() == expected
    second = {**expected, "do_reduce_labels": False, "image_processor_type": "MobileNetV2ImageProcessor"}
    assert MobileNetV2ImageProcessor().to_dict() == second
    assert json.loads(repr(MobileNetV1ImageProcessor()).split(" ", 1)[1])["resample"] == 2
    assert MobileNetV1FeatureExtractor is MobileNetV1ImageProcessor
    assert MobileNetV2FeatureExtractor is MobileNetV2ImageProcessor


def test_settings_of_one_processor_are_its_own() -> None:
    first = MobileNetV1ImageProcessor()
    first.size["shortest_edge"] = 9
    assert MobileNetV1ImageProcessor().to_dict()["size"] == {"shortest_edge": 256}
    first.crop_size = 7
    assert first(draw(20, 20)).pixel_values[0].shape == (3, 7, 7)


def test_older_files_load(tmp_path: Path) -> None:
    old = {"feature_extractor_type": "MobileNetV2FeatureExtractor", "size": 280, "crop_size": 257, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**old, "reduce_labels": True, "shiny": [1]}))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, MobileNetV2ImageProcessor)
    stored = processor.to_dict()
    assert stored["size"] == {"shortest_edge": 280}
    assert stored["crop_size"] == {"height": 257, "width": 257}
    assert stored["do_reduce_labels"] is True
    assert "shiny" not in stored
    square = MobileNetV1ImageProcessor.from_pretrained(tmp_path / "preprocessor_config.json", default_to_square=True)
    assert square.to_dict()["size"] == {"height": 280, "width": 280}
    assert (
        MobileNetV1ImageProcessor.from_pretrained(str(tmp_path), do_resize=False, use_fast=True).to_dict()["do_resize"]
        is False
    )


def test_the_class_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    for named, expected in (
        ({"image_processor_type": "MobileNetV1ImageProcessorFast"}, MobileNetV1ImageProcessor),
        ({"image_processor_type": "MobileNetV2ImageProcessorPil"}, MobileNetV2ImageProcessor),
        ({"feature_extractor_type": "MobileNetV1FeatureExtractor"}, MobileNetV1ImageProcessor),
    ):
        path.write_text(json.dumps(named))
        assert type(AutoImageProcessor.from_pretrained(tmp_path)) is expected
    path.write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "mobilenet_v2"}')
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is MobileNetV2ImageProcessor
    path.write_text('{"image_processor_type": "ViTImageProcessor"}')
    with pytest.raises(ConfigError, match="expected the processor of a MobileNet V1 or V2, got 'ViTImageProcessor'"):
        AutoImageProcessor.from_pretrained(tmp_path)
    path.unlink()
    nested = {"image_processor": {"image_processor_type": "MobileNetV1ImageProcessor", "size": 99}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert AutoImageProcessor.from_pretrained(tmp_path).to_dict()["size"] == {"shortest_edge": 99}
    with pytest.raises(ConfigError, match=r"use AutoImageProcessor\.from_pretrained"):
        AutoImageProcessor()


def test_a_native_file_holds_its_processor(tmp_path: Path) -> None:
    checkpoint = Checkpoint(MobileNetV1Config(), {}, "MobileNetV1Model", {"size": 99})
    hdf5.write(tmp_path / "net.h5", checkpoint)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "net.h5")
    assert type(processor) is MobileNetV1ImageProcessor
    assert processor.to_dict()["size"] == {"shortest_edge": 99}
    hdf5.write(tmp_path / "bare.h5", Checkpoint(MobileNetV1Config(), {}, "MobileNetV1Model"))
    with pytest.raises(FormatError, match=r"bare\.h5: holds no image-processor settings"):
        AutoImageProcessor.from_pretrained(tmp_path / "bare.h5")


def test_a_hub_id_goes_through_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MobileNetV2ImageProcessor(size=77).save_pretrained(tmp_path)
    asked = []

    def locate(source: str, names: Any) -> Path:
        asked.append((source, tuple(names)))
        return tmp_path / names[0]

    monkeypatch.setattr(hub, "locate", locate)
    assert AutoImageProcessor.from_pretrained("owner/net").to_dict()["size"] == {"shortest_edge": 77}
    assert asked == [("owner/net", ("preprocessor_config.json", "processor_config.json"))]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_saving_and_loading_is_the_identity(kind: type[MobileNetV1ImageProcessor], tmp_path: Path) -> None:
    processor = kind(size={"height": 9, "width": 8}, image_mean=[0.1, 0.2, 0.3], resample=0, do_center_crop=False)
    (written,) = processor.save_pretrained(tmp_path / "new" / "place")
    assert [path.name for path in Path(written).parent.iterdir()] == ["preprocessor_config.json"]
    assert kind.from_pretrained(tmp_path / "new" / "place").to_dict() == processor.to_dict()
    assert kind.from_dict(processor.to_dict()).to_dict() == processor.to_dict()
    with pytest.raises(FormatError):
        processor.save_pretrained(written)  # a file, not a directory
    with pytest.raises(InputError, match="save_pretrained: expected a directory, got NoneType"):
        processor.save_pretrained(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("size", {"height": 10.5, "width": 3}, "size to be made of whole numbers"),
        ("size", {"shortest_edge": 0}, "size to be made of whole numbers"),
        ("size", {"shortest_edge": 10**10}, r"size to be made of whole numbers in 1\.\.65536"),
        ("size", {"height": 5}, "size to be a whole number, a pair"),
        ("size", [1, 2, 3], "size to be a whole number, a pair"),
        ("size", "256", "size to be a whole number, a pair"),
        ("crop_size", {"shortest_edge": 5}, "crop_size to be a whole number, a pair"),
        ("crop_size", 60_000, "crop_size to be of at most 268435456 pixels"),
        ("crop_size", True, "crop_size to be a whole number, a pair"),
        ("resample", 17, "resample to be one of PIL's filters"),
        ("resample", "bilinear", "resample to be one of PIL's filters"),
        ("do_resize", 1, "do_resize to be True or False"),
        ("rescale_factor", "1/255", "rescale_factor to be a finite number"),
        ("rescale_factor", 10**400, "rescale_factor to be a finite number"),
        ("data_format", np.zeros((2, 2)), "data_format to be one of channels_first, channels_last"),
        ("rescale_factor", float("nan"), "rescale_factor to be a finite number"),
        ("image_mean", ["a"], "image_mean to be a finite number"),
        ("image_mean", [], "image_mean to be a number or a list"),
        ("image_std", [0.5, 0.0, 0.5], "image_std to be different from zero"),
    ],
)
def test_wrong_settings_are_refused_everywhere(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MobileNetV1ImageProcessor(**{setting: value})
    with pytest.raises(ConfigError, match=message):
        MobileNetV2ImageProcessor.from_dict({setting: value})
    with pytest.raises(InputError, match=message):
        MobileNetV2ImageProcessor()(draw(8, 8), **{setting: value})


def test_unknown_settings_are_suggested() -> None:
    with pytest.raises(ConfigError, match=r"there is no setting 'do_resise'; did you mean do_resize\?"):
        MobileNetV1ImageProcessor(do_resise=True)
    with pytest.raises(InputError, match=r"there is no setting 'crop'; (did you mean crop_size\?|there are)"):
        MobileNetV1ImageProcessor()(draw(8, 8), crop=3)


@pytest.mark.parametrize(
    ("step", "needed"), [("do_resize", "size"), ("do_normalize", "image_std"), ("do_rescale", "rescale_factor")]
)
def test_a_step_without_what_it_needs(step: str, needed: str) -> None:
    with pytest.raises(InputError, match=f"{step}=True needs {needed}, got None"):
        MobileNetV1ImageProcessor()(draw(8, 8), **{needed: None})
    assert MobileNetV1ImageProcessor()(draw(300, 300), **{needed: None, step: None}).pixel_values


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    for content in (
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"size": 1' + b"0" * 5000 + b"}",
        b'{"rescale_factor": NaN}',
    ):
        path.write_bytes(content)
        with pytest.raises(MinimobileError, match=r"preprocessor_config\.json"):
            AutoImageProcessor.from_pretrained(tmp_path)
    path.unlink()
    for source in (tmp_path, tmp_path / "none", "a\0b", 5):
        with pytest.raises(FormatError):
            AutoImageProcessor.from_pretrained(source)  # type: ignore[arg-type]


# From here on: against transformers itself.


@st.composite
def cases(draw_from: st.DrawFn) -> tuple[bool, Any, dict[str, Any], Any, bool, str | None]:
    """Draw (is V2, picture, settings, map, settings given to the constructor, return_tensors)."""

    def pick(*choices: Any) -> Any:
        return draw_from(st.sampled_from(choices))

    def edge(most: int) -> int:
        return draw_from(st.integers(1, most))

    random = np.random.default_rng(draw_from(st.integers(0, 10**6)))
    channels = pick(3, 3, 3, 3, 1, 4, 2)
    channels_first = pick(True, False)
    height, width = edge(300), edge(300)
    shape = (channels, height, width) if channels_first else (height, width, channels)
    dtype = np.dtype(pick("u1", "u1", "u1", "f4", "f8", "f2", "i8", "i4", "u2", "?"))
    fractions = dtype.kind == "f" and pick(True, False)
    picture: Any = random.random(shape) if fractions else random.integers(0, 256, shape) * (random.random() < 0.98)
    picture = (picture > 100 if dtype.kind == "b" else picture).astype(dtype)
    chosen: dict[str, Any] = {}
    if pick(True, False):
        chosen["size"] = pick(
            {"shortest_edge": edge(200)},
            {"height": edge(200), "width": edge(200)},
            {"shortest_edge": edge(200), "longest_edge": edge(300)},
            {"max_height": edge(200), "max_width": edge(200)},
            edge(100),
            [edge(100), edge(100)],
        )
    if pick(True, False):
        chosen["crop_size"] = pick(edge(250), {"height": edge(250), "width": edge(250)}, (edge(250), edge(250)))
    if pick(True, True, False):
        chosen["resample"] = draw_from(st.integers(0, 5))
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        chosen.update(pick({}, {}, {}, {step: False}, {step: None}))
    chosen.update(pick({}, {"rescale_factor": pick(1 / 127.5, 0.5, 1 / 256)}))
    chosen.update(pick({}, {"image_mean": pick(0.3, [0.485, 0.456, 0.406], (0.1, 0.2, 0.3))}))
    chosen.update(pick({}, {"image_std": pick(0.3, [0.229, 0.224, 0.225])}))
    if channels != 3:
        chosen.update(image_mean=[0.6] * channels, image_std=[0.4] * channels)
    chosen.update(
        pick({}, {}, {"do_convert_rgb": True, "image_mean": 0.5, "image_std": 0.25}, {"do_convert_rgb": False})
    )
    is_pil = dtype == np.uint8 and not channels_first and channels in {3, 4} and pick(True, False)
    if is_pil:
        picture = Image.fromarray(picture)
        if channels == 4 and not chosen.get("do_normalize", True):
            chosen["do_convert_rgb"] = False  # else ours becomes RGB, where theirs keeps alpha because nobody minds
    elif channels == 2 or {1, 3, 4}.issuperset({shape[0], shape[2]}) or pick(True, False):
        chosen["input_data_format"] = "channels_first" if channels_first else "channels_last"
    is_v2 = pick(True, False)
    labels = random.integers(0, 256, (edge(150), edge(150))).astype(pick(np.uint8, np.int64, np.float32))
    chosen.update(
        pick({}, {"do_reduce_labels": True}) if is_v2 else pick({}, {"do_pad": True, "pad_size": pick(None, 300)})
    )
    return is_v2, picture, chosen, labels if is_v2 else None, pick(True, False), pick(None, "np", "pt")


def import_peers() -> tuple[Any, Any]:
    pytest.importorskip("torch")
    v1 = pytest.importorskip("transformers.models.mobilenet_v1.image_processing_pil_mobilenet_v1")
    v2 = pytest.importorskip("transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2")
    return v1.MobileNetV1ImageProcessorPil, v2.MobileNetV2ImageProcessorPil


def run_case(kind: Any, case: tuple[bool, Any, dict[str, Any], Any, bool, str | None]) -> Any:
    is_v2, picture, chosen, labels, at_construction, framework = case
    maps = {"segmentation_maps": labels.copy()} if is_v2 else {}
    if not at_construction:
        return kind()(picture, **maps, **chosen, return_tensors=framework)
    later = {name: value for name, value in chosen.items() if name == "input_data_format"}
    processor = kind(**{name: value for name, value in chosen.items() if name not in later})
    return processor(picture, **maps, **later, return_tensors=framework)


@pytest.mark.crosscheck
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300)
@given(cases())
def test_equals_transformers(case: tuple[bool, Any, dict[str, Any], Any, bool, str | None]) -> None:
    peers = import_peers()
    try:
        expected = run_case(peers[case[0]], case)
    except Exception as refusal:  # theirs are of many classes
        with pytest.raises(MinimobileError):
            run_case(PROCESSORS[case[0]], case)
        assert not isinstance(refusal, MinimobileError)
        return
    got = run_case(PROCESSORS[case[0]], case)
    assert set(got) == set(expected)
    for name in expected:
        assert type(got[name]) is type(expected[name])
        for ours, theirs in zip(got[name], expected[name], strict=True):
            one, other = np.asarray(ours), np.asarray(theirs)
            assert (one.shape, one.dtype) == (other.shape, other.dtype), case
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), case


@pytest.mark.crosscheck
def test_real_files_and_pictures(test_data: Path, tmp_path: Path) -> None:
    peers = import_peers()
    folders = sorted(path.parent for path in (test_data / "models" / "huggingface").glob("*/preprocessor_config.json"))
    assert folders
    pictures = [str(path) for path in sorted((test_data / "images").iterdir()) if path.is_file()]
    for folder in folders:
        ours = AutoImageProcessor.from_pretrained(folder)
        theirs = peers[isinstance(ours, MobileNetV2ImageProcessor)].from_pretrained(folder)
        assert ours.to_dict() == theirs.to_dict()
        got, expected = ours(pictures, return_tensors="np"), theirs(pictures, return_tensors="np")
        assert np.array_equal(got.pixel_values, expected.pixel_values)
        ours.save_pretrained(tmp_path / "ours")
        theirs.save_pretrained(tmp_path / "theirs")
        files = [(tmp_path / name / "preprocessor_config.json").read_text() for name in ("ours", "theirs")]
        assert json.loads(files[0]) == json.loads(files[1])
        assert type(theirs).from_pretrained(tmp_path / "ours").to_dict() == theirs.to_dict()


@pytest.mark.crosscheck
def test_torch_tensors_in_and_out() -> None:
    torch = pytest.importorskip("torch")
    picture = torch.from_numpy(draw(30, 40)).permute(2, 0, 1)
    processor = MobileNetV2ImageProcessor(size=30, crop_size=16)
    values = processor(picture, picture[0], return_tensors="pt")
    assert values.pixel_values.dtype == torch.float32
    assert values.labels.dtype == torch.int64
    assert torch.equal(
        values.pixel_values, torch.from_numpy(processor(picture.numpy(), return_tensors="np").pixel_values)
    )
    for bad in (torch.zeros(3, 8, 8, requires_grad=True), torch.zeros(3, 8, 8, dtype=torch.bfloat16)):
        with pytest.raises(InputError, match="images: Tensor cannot be made a NumPy array"):
            processor(bad)


@pytest.mark.crosscheck
def test_post_processing_equals_transformers() -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = import_peers()[1](), MobileNetV2ImageProcessor()
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 21, 33, 29)).astype(np.float32))
    for sizes in (None, [(65, 65), (480, 640), (7, 9)]):
        expected = theirs.post_process_semantic_segmentation(SimpleNamespace(logits=logits), sizes)
        for form in (logits, logits.numpy()):
            got = ours.post_process_semantic_segmentation(SimpleNamespace(logits=form), sizes)
            for one, other in zip(got, expected, strict=True):
                assert one.shape == tuple(other.shape)
                assert np.mean(one != other.numpy()) <= 1e-4  # their weights are float32: near ties may fall otherwise
    scores = ours.post_process_semantic_segmentation(SimpleNamespace(logits=logits), [(50, 60)] * 3, True)
    expected = theirs.post_process_semantic_segmentation(SimpleNamespace(logits=logits), [(50, 60)] * 3, True)
    for one, other in zip(scores, expected, strict=True):
        assert set(one) == set(other)
        assert np.allclose(one.segmentation_scores, other.segmentation_scores, rtol=0, atol=1e-4)
