"""Image processors: by hand, in every form a picture comes in, and equal to transformers'."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import PROCESSORS, draw
from PIL import Image

from minimobile.errors import FormatError, InputError, UnavailableError
from minimobile.imaging import transforms
from minimobile.imaging.batches import BatchFeature
from minimobile.imaging.image_processing import (
    MobileNetV1ImageProcessor,
    MobileNetV2ImageProcessor,
)
from minimobile.imaging.pictures import bring_upright
from minimobile.imaging.transforms import center_crop, resized_size

PLAIN = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}


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
        (300, 500, {"shortest_edge": 100}, (100, 166)),
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
    assert np.unique(values).tolist() == sorted(
        {1.0, -1.0, float(np.float32(51 * (1 / 255)) / np.float32(0.5) - np.float32(1))}
    )
    strip = np.random.default_rng(0).integers(0, 256, (1, 10000, 3), dtype=np.uint8)
    tracemalloc.start()
    for picture in (strip, strip.transpose(1, 0, 2)):
        values = processor(Image.fromarray(np.ascontiguousarray(picture)), return_tensors="np").pixel_values
        assert values.shape == (1, 3, 224, 224)
        assert len(np.unique(values)) > 20
    assert tracemalloc.get_traced_memory()[1] < 20e6  # the whole would have 655 million pixels
    tracemalloc.stop()
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


def test_batch_feature_stacks_its_lists_when_asked_to() -> None:
    pictures = [np.zeros((3, 4, 5), np.float32), np.ones((3, 4, 5), np.float32)]
    feature = BatchFeature(pixel_values=pictures)
    assert feature.data == {"pixel_values": pictures}
    assert feature.convert_to_tensors("np") is feature
    assert feature.pixel_values.shape == (2, 3, 4, 5)
    with pytest.raises(InputError, match="expected one of np, pt, tf, jax, got 'xx'"):
        feature.convert_to_tensors("xx")
    with pytest.raises(InputError, match="expected pictures of one size"):
        BatchFeature(pixel_values=[pictures[0], pictures[0][:, 1:]]).convert_to_tensors("np")
