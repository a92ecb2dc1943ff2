"""Resampling: ramps by hand, laws, and equal to Pillow's."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minimobile.imaging import resampling, transforms
from minimobile.imaging.filters import QUICK_FILTERS, find_taps
from minimobile.imaging.pillow_memory import view_pixels
from minimobile.imaging.resampling import (
    WINDOW_FILTERS,
    argmax_bilinear,
    interpolate_bilinear,
    mix_passes,
    resize_window,
)
from minimobile_kernels import reference


def test_doubling_a_ramp_by_hand() -> None:
    # Outputs 0..3 read the input at -0.25, 0.25, 0.75 and 1.25; the ends are held.
    assert interpolate_bilinear(np.array([[[0.0, 4.0]]]), (1, 4)).tolist() == [[[0, 1, 3, 4]]]
    assert interpolate_bilinear(np.array([[[0.0], [4.0]]]), (4, 1)).tolist() == [[[0], [1], [3], [4]]]


def test_shrinking_does_not_average() -> None:
    # One output of three reads the middle; one of four reads half-way between the second and third.
    assert interpolate_bilinear(np.array([[[9.0, 1.0, 9.0]]]), (1, 1)).item() == 1
    assert interpolate_bilinear(np.array([[[9.0, 1.0, 3.0, 9.0]]]), (1, 1)).item() == 2


def test_aligned_corners_by_hand() -> None:
    x = np.array([[[0.0, 4.0, 8.0]]])
    assert interpolate_bilinear(x, (2, 5), align_corners=True).tolist() == [[[0, 2, 4, 6, 8]] * 2]
    assert interpolate_bilinear(x, (1, 1), align_corners=True).item() == 0
    assert argmax_bilinear(np.concatenate([x, 5 - x]), (1, 5), align_corners=True).tolist() == [[1, 1, 0, 0, 0]]


sizes = st.integers(1, 17)


@given(sizes, sizes, sizes, sizes, st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_bilinear_is_the_kernels_definition(
    h: int, w: int, new_h: int, new_w: int, channels: int, seed: int, corners: bool
) -> None:
    x = np.random.default_rng(seed).standard_normal((channels, h, w)).astype(np.float32)
    x.flat[seed % x.size] = np.inf if seed % 5 == 0 else 1
    with np.errstate(invalid="ignore"):
        found = interpolate_bilinear(x, (new_h, new_w), align_corners=corners)
        defined = reference.resize_bilinear(x.transpose(1, 2, 0)[None], new_h, new_w, corners)
    np.testing.assert_array_equal(found, defined[0].transpose(2, 0, 1))


@given(sizes, sizes, sizes, sizes, st.integers(1, 5), st.integers(0, 99))
def test_bilinear_laws(h: int, w: int, new_h: int, new_w: int, channels: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((channels, h, w))
    y = interpolate_bilinear(x, (new_h, new_w))
    assert y.shape == (channels, new_h, new_w)
    assert np.array_equal(interpolate_bilinear(x, (h, w)), x)
    twice = interpolate_bilinear(interpolate_bilinear(x, (new_h, w)), (new_h, new_w))
    assert np.allclose(y, twice, rtol=0, atol=1e-14)
    assert np.allclose(interpolate_bilinear(x[:, ::-1, ::-1], (new_h, new_w))[:, ::-1, ::-1], y, rtol=0, atol=1e-12)
    assert x.min() - 1e-12 <= y.min() <= y.max() <= x.max() + 1e-12
    x32 = x.astype(np.float32)
    assert interpolate_bilinear(x32, (new_h, new_w)).dtype == np.float32
    assert np.array_equal(argmax_bilinear(x32, (new_h, new_w)), interpolate_bilinear(x32, (new_h, new_w)).argmax(0))


@given(sizes, sizes, sizes, st.integers(1, 1100), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_compiled_code_chooses_the_classes_of_the_definition(
    h: int, w: int, new_h: int, new_w: int, channels: int, seed: int, corners: bool
) -> None:
    """Ties, infinities and NaN too; more columns than are computed at a time."""
    generator = np.random.default_rng(seed)
    x = generator.integers(-2, 3, (channels, h, w)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        x[generator.random(x.shape) < 0.05 * (seed % 3)] = value
    with np.errstate(invalid="ignore"):
        defined = interpolate_bilinear(x, (new_h, new_w), align_corners=corners).argmax(0)
    found = argmax_bilinear(x, (new_h, new_w), align_corners=corners, dtype=np.uint8)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, defined)


def test_bands_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(5).standard_normal((21, 9, 11)).astype(np.float32)
    whole = argmax_bilinear(x, (67, 45))
    monkeypatch.setattr(resampling, "_BAND_PIXELS", 200)
    np.testing.assert_array_equal(argmax_bilinear(x, (67, 45)), whole)


def test_segmentation_size_is_lean() -> None:
    x = np.random.default_rng(0).standard_normal((21, 65, 65)).astype(np.float32)
    whole = interpolate_bilinear(x, (480, 640))
    tracemalloc.start()
    labels = argmax_bilinear(x, (480, 640))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(labels, whole.argmax(0))
    assert peak < whole.nbytes  # it never holds all the channels


@given(st.data())
def test_window_equals_pillow(data: st.DataObject) -> None:
    edges = st.integers(1, 60)
    h, w, new_h, new_w = (data.draw(edges) for _ in range(4))
    channels = data.draw(st.sampled_from((1, 3)))
    resample = data.draw(st.sampled_from(sorted(WINDOW_FILTERS)))
    x = np.random.default_rng(data.draw(st.integers(0, 999))).integers(0, 256, (h, w, channels), dtype=np.uint8)
    top, left = data.draw(st.integers(0, new_h - 1)), data.draw(st.integers(0, new_w - 1))
    height, width = data.draw(st.integers(1, new_h - top)), data.draw(st.integers(1, new_w - left))
    whole = np.asarray(Image.fromarray(x[..., 0] if channels == 1 else x).resize((new_w, new_h), resample))
    expected = whole.reshape(new_h, new_w, channels)[top : top + height, left : left + width]
    got = resize_window(x, (new_h, new_w), resample, (top, left, height, width))
    assert np.array_equal(got, expected), (h, w, new_h, new_w, channels, resample, top, left, height, width)


def test_window_by_hand() -> None:
    # 2 -> 4, bilinear: outputs 1 and 2 are 3/4 and 1/4 of the first sample.
    x = np.array([[[0], [200]]], np.uint8)
    assert resize_window(x, (1, 4), 2, (0, 1, 1, 2)).tolist() == [[[50], [150]]]


@given(st.data())
def test_compiled_passes_equal_the_definition(data: st.DataObject) -> None:
    n_in, n_out, others, seed = (data.draw(st.integers(1, 70)) for _ in range(4))
    channels = data.draw(st.sampled_from((1, 3, 4)))
    first = data.draw(st.integers(0, n_out - 1))
    resample = data.draw(st.sampled_from(sorted(WINDOW_FILTERS - {Image.Resampling.NEAREST})))
    taps = find_taps(n_in, n_out, first, data.draw(st.integers(1, n_out - first)), resample)
    begin, end = taps.reach
    assert 0 <= begin < end <= n_in  # kernels look at no bounds
    x = np.random.default_rng(seed).integers(0, 256, (n_in, others, channels), dtype=np.uint8)
    x[x > 200], x[x < 50] = 255, 0  # so that sums of bicubic and Lanczos leave the bytes
    expected = reference.resample_bytes(x, *taps)[..., :3]
    same = find_taps(others, others, 0, others, resample)
    np.testing.assert_array_equal(mix_passes(x, taps, same), expected)
    turned = np.ascontiguousarray(x.transpose(1, 0, 2))
    np.testing.assert_array_equal(mix_passes(turned, same, taps), expected.transpose(1, 0, 2))


@given(st.data())
def test_either_pass_may_come_first(data: st.DataObject) -> None:
    """Pillow is going to choose: from its version 13 on."""
    h, w, new_h, new_w = (data.draw(st.integers(1, 40)) for _ in range(4))
    channels = data.draw(st.sampled_from((1, 3, 4)))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (h, w, channels), dtype=np.uint8)
    down, across = find_taps(h, new_h, 0, new_h, 3), find_taps(w, new_w, 0, new_w, 3)
    rows = reference.resample_bytes(x, *down).transpose(1, 0, 2)
    expected = reference.resample_bytes(rows, *across).transpose(1, 0, 2)[..., :3]
    np.testing.assert_array_equal(mix_passes(x, down, across, rows_first=True), expected)


def test_no_weight_is_beyond_what_three_bytes_hold() -> None:
    sizes = (1, 2, 3, 4, 5, 6, 7, 9, 12, 40)
    for n_in, n_out, resample in itertools.product(sizes, sizes, WINDOW_FILTERS - {Image.Resampling.NEAREST}):
        assert np.abs(find_taps(n_in, n_out, 0, n_out, resample).weights).max() < 2**23 - 2**16


def test_a_pass_by_hand() -> None:
    # 1/4 and 3/4 of 2 and 3 is 2.75; twice 200 less 10 is clipped, as is less than nothing; halves are rounded up.
    one = 1 << reference.RESAMPLING_BITS
    x = np.array([[2], [3], [200], [10]], np.uint8)
    weights = np.array([[one // 4, one // 4 * 3], [one // 2, one // 2], [2 * one, -one], [-one, one]], np.int32)
    starts = np.array([0, 0, 2, 2])
    assert reference.resample_bytes(x, starts, weights).ravel().tolist() == [3, 3, 255, 0]


@given(st.data())
def test_resize_and_crop_equal_pillow(data: st.DataObject) -> None:
    """Images whose memory is read where it lies, in the mode RGB four bytes to a pixel."""
    edges = st.integers(1, 60)
    h, w, new_h, new_w, crop_h, crop_w = (data.draw(edges) for _ in range(6))
    channels = data.draw(st.sampled_from((1, 3, 4)))  # of RGBA's alpha Pillow makes use
    resample = data.draw(st.sampled_from(sorted(WINDOW_FILTERS)))
    x = np.random.default_rng(data.draw(st.integers(0, 999))).integers(0, 256, (h, w, channels), dtype=np.uint8)
    picture = Image.fromarray(x[..., 0] if channels == 1 else x)
    whole = np.asarray(picture.resize((new_w, new_h), resample)).reshape(new_h, new_w, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(transforms.resize(picture, (new_h, new_w), resample), whole)
    windowed = transforms.resize(picture, (new_h, new_w), resample, (crop_h, crop_w))
    cropped = transforms.center_crop(whole, crop_h, crop_w)
    np.testing.assert_array_equal(transforms.center_crop(windowed, crop_h, crop_w), cropped)


@pytest.mark.parametrize("resample", sorted(QUICK_FILTERS))
@pytest.mark.parametrize("size", [(375, 500), (640, 120), (90, 70)])
def test_photographs_equal_pillow(size: tuple[int, int], resample: int) -> None:
    picture = Image.fromarray(np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8))
    for new in ((256, 341), (224, 224), size):
        whole = np.asarray(picture.resize((new[1], new[0]), resample)).transpose(2, 0, 1)
        np.testing.assert_array_equal(transforms.resize(picture, new, resample), whole)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "CMYK"])
def test_pixels_are_seen_where_they_are(mode: str) -> None:
    picture = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).convert(mode)
    seen = view_pixels(picture)
    if mode not in ("L", "RGB") or not hasattr(picture, "__arrow_c_array__"):
        assert seen is None
        return
    assert seen is not None and not seen.flags.writeable
    expected = np.asarray(picture).reshape(4, 5, -1)
    del picture  # the array keeps the memory
    np.testing.assert_array_equal(seen[..., : expected.shape[2]], expected)


def test_pixels_elsewhere_are_not_looked_for(tmp_path: Path) -> None:
    """In several blocks, and mapped from a file."""
    picture = Image.new("RGB", (2100, 2100), (1, 2, 3))
    assert view_pixels(picture) is None
    assert (transforms.resize(picture, (20, 20), 2) == np.array([1, 2, 3])[:, None, None]).all()
    grey = np.random.default_rng(1).integers(0, 256, (40, 36), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.bmp")
    mapped, copied = Image.open(tmp_path / "grey.bmp"), Image.fromarray(grey)
    mapped.load()
    assert mapped.readonly
    assert view_pixels(mapped) is None
    np.testing.assert_array_equal(transforms.resize(mapped, (9, 7), 2)[0], np.asarray(copied.resize((7, 9), 2)))


@pytest.mark.crosscheck
@given(sizes, sizes, st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.booleans())
def test_bilinear_equals_torch(h: int, w: int, new_h: int, new_w: int, seed: int, corners: bool) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(seed).standard_normal((3, h, w))

    def interpolate(array: np.ndarray) -> np.ndarray:
        options = {"size": (new_h, new_w), "mode": "bilinear", "align_corners": corners}
        return torch.nn.functional.interpolate(torch.from_numpy(array)[None], **options)[0].numpy()

    exact = interpolate(x)
    assert np.allclose(interpolate_bilinear(x, (new_h, new_w), align_corners=corners), exact, rtol=0, atol=1e-12)
    x32 = x.astype(np.float32)
    exact = interpolate(x32.astype(np.float64))
    ours = np.abs(interpolate_bilinear(x32, (new_h, new_w), align_corners=corners) - exact).max()
    theirs = np.abs(interpolate(x32) - exact).max()
    assert ours <= max(theirs, 2**-22)  # half a unit in the last place below 4
