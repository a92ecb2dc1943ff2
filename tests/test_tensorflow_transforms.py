"""TensorFlow 1's resizing and cropping: by hand, equal to the definition, and bounded."""

from __future__ import annotations

import math

import frameworks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.errors import InputError
from minimobile.imaging.tensorflow_transforms import (
    central_crop,
    multiply,
    resize_bilinear,
    resize_half_pixel,
    resize_nearest,
)

SIZES = st.integers(1, 40)


def naive_resize(image: np.ndarray, height: int, width: int, align_corners: bool) -> np.ndarray:
    """Do what TensorFlow's kernel does, a pixel at a time, every operation in float32."""
    channels, h, w = image.shape

    def source(index: int, n_in: int, n_out: int) -> tuple[int, int, np.float32]:
        corners = align_corners and n_out > 1
        step = np.float32(n_in - corners) / np.float32(n_out - corners)
        position = np.float32(index) * step
        below = math.floor(position)
        return min(below, n_in - 1), min(math.ceil(position), n_in - 1), position - np.float32(below)

    out = np.empty((channels, height, width), np.float32)
    for i in range(height):
        top, bottom, down = source(i, h, height)
        for j in range(width):
            left, right, across = source(j, w, width)
            for o in range(channels):
                corner = image[o, [[top, top], [bottom, bottom]], [[left, right], [left, right]]].astype(np.float32)
                rows = corner[:, 0] + (corner[:, 1] - corner[:, 0]) * across
                out[o, i, j] = rows[0] + (rows[1] - rows[0]) * down
    return out


def test_resizing_by_hand() -> None:
    row = np.array([[[0, 4, 8]]])
    # Output i reads at 0.5 i: no half pixels, so the picture moves to the top left, and the last pixel is repeated.
    assert resize_bilinear(row, (1, 6), align_corners=False).ravel().tolist() == [0, 2, 4, 6, 8, 8]
    assert resize_bilinear(row, (2, 5), align_corners=True).tolist() == [[[0, 2, 4, 6, 8]] * 2]
    # No antialiasing: every second pixel, whatever lies between.
    assert resize_bilinear(np.arange(8).reshape(1, 1, 8), (1, 4), align_corners=False).ravel().tolist() == [0, 2, 4, 6]
    assert resize_bilinear(row, (1, 1), align_corners=True).item() == 0
    assert resize_nearest(np.array([[1, 2, 3]]), (2, 5)).tolist() == [[1, 2, 2, 3, 3]] * 2  # 0.5 and 1.5 go up


@pytest.mark.parametrize(
    ("size", "fraction", "kept"),
    [(224, 0.875, 196), (15, 0.875, 15), (16, 0.875, 14), (31, 0.875, 29), (1, 0.1, 1), (2, 0.1, 2), (10, 0.5, 6)],
)
def test_central_crop_by_hand(size: int, fraction: float, kept: int) -> None:
    # The first pixel is int((size - size * fraction) / 2), and as many are cut off behind.
    row = central_crop(np.arange(size).reshape(1, 1, size), fraction)[0, 0]
    assert row.tolist() == list(range((size - kept) // 2, (size + kept) // 2))


@settings(max_examples=25)
@given(SIZES, SIZES, SIZES, SIZES, st.integers(1, 2), st.booleans(), st.integers(0, 9))
def test_resizing_equals_the_definition(
    h: int, w: int, height: int, width: int, channels: int, align_corners: bool, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (channels, h, w), dtype=np.uint8)
    height, width = min(height, 12), min(width, 12)
    found = resize_bilinear(image, (height, width), align_corners=align_corners, factor=1 / 255)
    expected = naive_resize(multiply(image, 1 / 255), height, width, align_corners)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@given(SIZES, SIZES, SIZES, SIZES, st.booleans())
def test_laws_of_resizing(h: int, w: int, height: int, width: int, align_corners: bool) -> None:
    image = np.random.default_rng(h).random((3, h, w), dtype=np.float32)
    resized = resize_bilinear(image, (height, width), align_corners=align_corners)
    assert resized.shape == (3, height, width)
    assert resized.min() >= image.min() - 1e-6
    assert resized.max() <= image.max() + 1e-6
    assert np.array_equal(resize_bilinear(image, (h, w), align_corners=align_corners), image)
    if align_corners and min(height, width) > 1:
        np.testing.assert_allclose(resized[:, [0, 0, -1, -1], [0, -1, 0, -1]], image[:, [0, 0, -1, -1], [0, -1, 0, -1]],
                                   atol=1e-5)  # fmt: skip  # the last position is rounded in float32
    ids = resize_nearest(np.arange(h * w).reshape(h, w), (height, width))
    assert ids[0, 0] == 0
    assert (np.diff(ids, axis=0) >= 0).all()
    if min(height, width) > 1:
        assert ids[-1, -1] == h * w - 1


def test_infinite_and_nan_pixels_reach_their_neighbours_only() -> None:
    image = np.zeros((1, 1, 4), np.float32)
    image[0, 0, 2] = np.nan
    assert np.isnan(resize_bilinear(image, (1, 8), align_corners=False))[0, 0].tolist() == [
        False, False, False, True, True, True, False, False
    ]  # fmt: skip


def test_enormous_sizes_are_refused() -> None:
    for resize in (resize_bilinear, resize_half_pixel, resize_nearest):
        options = {"align_corners": True} if resize is resize_bilinear else {}
        with pytest.raises(InputError, match="resizing to 65536x65536 would make more than"):
            resize(np.zeros((1, 1, 1), np.uint8), (65536, 65536), **options)


@pytest.mark.crosscheck
def test_steps_equal_tensorflow_s() -> None:
    tf = frameworks.tensorflow()
    bilinear, nearest = tf.compat.v1.image.resize_bilinear, tf.compat.v1.image.resize_nearest_neighbor
    random = np.random.default_rng(0)
    sizes = [*random.integers(1, 41, (300, 4)), (480, 640, 224, 224), (375, 500, 384, 513), (1, 1, 513, 513)]
    for h, w, height, width in sizes:
        image = random.integers(0, 256, (h, w, 1 + h % 4), dtype=np.uint8)
        planes = np.moveaxis(image, -1, 0)
        unit = tf.image.convert_image_dtype(image, tf.float32).numpy()
        assert np.array_equal(np.moveaxis(multiply(planes, 1 / 255), 0, -1), unit)
        for align_corners in (False, True):
            expected = bilinear(unit[None], (height, width), align_corners=align_corners).numpy()[0]
            found = resize_bilinear(planes, (height, width), align_corners=align_corners, factor=1 / 255)
            assert np.array_equal(np.moveaxis(found, 0, -1), expected), (h, w, height, width, align_corners)
        ids = nearest(image[None], (height, width), align_corners=True).numpy()[0]
        assert np.array_equal(np.moveaxis(resize_nearest(planes, (height, width)), 0, -1), ids), (h, w, height, width)
    for size in range(1, 300):
        row = np.arange(size).reshape(1, size, 1)
        for fraction in (0.875, 0.5, 0.1, 1.0, 1 / 3):
            expected = tf.image.central_crop(row, fraction).numpy()[0, :, 0]
            assert np.array_equal(central_crop(row[..., 0][None], fraction)[0, 0], expected), (size, fraction)
