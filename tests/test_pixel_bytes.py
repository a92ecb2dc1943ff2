"""Pixel values as bytes with a table: the same numbers, and in a network of integers the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import minimobile as mm
from minimobile.errors import InputError
from minimobile.execution.pixel_bytes import PixelBytes


@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_to_look_up_is_to_index(channels: int, height: int, width: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
    values = generator.standard_normal((channels, 256)).astype(np.float32)
    table = generator.integers(0, 256, (channels, 256), dtype=np.uint8)
    pixels = PixelBytes(picture, values)
    planes = np.moveaxis(picture, -1, 0)
    expected = np.stack([row[plane] for row, plane in zip(values, planes, strict=True)])[None]
    np.testing.assert_array_equal(np.asarray(pixels), expected)
    assert pixels.shape == expected.shape
    expected = np.stack([row[plane] for row, plane in zip(table, planes, strict=True)], -1)[None]
    np.testing.assert_array_equal(pixels.look_up(table), expected)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("input_type", ["uint8", "int8", "float32"])
def test_a_network_of_integers_reads_the_bytes_that_it_makes_of_the_floats(
    input_type: str, photograph: Image.Image
) -> None:
    model = mm.quantize("demo:digits", [photograph], input_type=input_type)
    others = {"image_mean": (0.1, 0.5, 0.9), "image_std": (0.2, 0.5, 0.7)}, {"rescale_factor": 0.01}
    for settings in ({}, *others):
        pixels = model.processor.prepare(photograph, **settings)
        floats = model.processor(photograph, return_tensors="np", **settings)["pixel_values"]
        assert isinstance(pixels, PixelBytes)
        np.testing.assert_array_equal(np.asarray(pixels), floats)
        stored, expected = model.runner.store(pixels), model.runner.store(floats)
        assert stored.dtype == expected.dtype == input_type
        np.testing.assert_array_equal(stored, expected)
        np.testing.assert_array_equal(model(pixels).logits, model(floats).logits)


def test_what_is_no_table_of_numbers_goes_the_way_of_floats(photograph: Image.Image) -> None:
    model = mm.quantize("demo:digits", [photograph])
    picture = np.zeros((64, 64, 3), np.uint8)
    values = np.zeros((3, 256), np.float32)
    values[:, 7] = np.nan
    assert np.ptp(model.runner.store(PixelBytes(picture, values))) == 0  # no byte of it is a 7
    with pytest.raises(InputError, match="got NaN"):
        model(PixelBytes(picture + np.uint8(7), values))
    with pytest.raises(InputError, match="got 32x64 and 3"):
        model(PixelBytes(picture[::2], values))
    with pytest.raises(InputError, match="expected 3 channels"):
        model(PixelBytes(picture[..., :2].copy(), values[:2]))


def test_other_settings_have_the_numbers_of_a_call(photograph: Image.Image) -> None:
    process = mm.load("demo:digits").processor
    for settings in ({"data_format": "channels_last"}, {"do_pad": True}, {"do_rescale": False, "do_normalize": False}):
        expected = process(photograph, return_tensors="np", **settings)["pixel_values"]
        np.testing.assert_array_equal(process.prepare(photograph, **settings), expected)
    both = process([photograph, photograph], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(process.prepare([photograph, photograph]), both)
