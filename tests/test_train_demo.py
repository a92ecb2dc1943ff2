"""The pictures the embedded models are trained on: fixed by a seed, and their truth is right. Nothing is trained."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.demo_scenes import (
    BACKGROUND,
    GLYPH_SIZE,
    disc,
    draw_digit,
    draw_glyph,
    draw_scene,
    luminance,
    pick_pair,
    scatter,
)


def make_ink(seed: int = 0) -> NDArray[np.float64]:
    """Make an (8, 8) "digit" of random strokes, as load_digits has them: 0 to 16."""
    return np.random.default_rng(seed).integers(0, 17, (8, 8)).astype(np.float64)


def test_a_scene_names_the_class_of_every_pixel() -> None:
    glyphs = [draw_glyph(make_ink(i)) for i in range(6)]
    picture, classes, badges = draw_scene(np.random.default_rng(5), glyphs, [0, 1, 2, 7, 9, 9], side=96)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == classes.dtype == np.uint8
    assert len(badges) >= 3
    rows, columns = np.mgrid[:96, :96] + 0.5
    expected = np.full((96, 96), BACKGROUND)
    for badge in badges:
        expected[np.hypot(columns - badge.x, rows - badge.y) <= badge.radius] = badge.digit + 1
    differing = expected != classes
    assert differing.sum() <= 2, f"{differing.sum()} pixels differ"  # float32 against float64 on the very edge
    assert {*np.unique(classes)} == {BACKGROUND, *(badge.digit + 1 for badge in badges)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_seed_fixes_the_picture(seed: int) -> None:
    glyphs = [draw_glyph(make_ink(i)) for i in range(3)]
    digit = [draw_digit(np.random.default_rng(s), glyphs[0], 48) for s in (seed, seed, seed + 1)]
    scene = [draw_scene(np.random.default_rng(s), glyphs, [1, 2, 3], 64)[0] for s in (seed, seed, seed + 1)]
    for first, again, other in (digit, scene):
        np.testing.assert_array_equal(first, again)
        assert (first != other).mean() > 0.5


def test_badges_neither_overlap_nor_leave_the_scene() -> None:
    for seed in range(20):
        badges = scatter(np.random.default_rng(seed), 160, range(9))
        for index, badge in enumerate(badges):
            assert badge.radius <= badge.x <= 160 - badge.radius
            assert badge.radius <= badge.y <= 160 - badge.radius
            for other in badges[:index]:
                assert np.hypot(badge.x - other.x, badge.y - other.y) > badge.radius + other.radius


def test_a_glyph_shows_its_digit() -> None:
    ink = np.zeros((8, 8))
    ink[2, 5] = 16.0
    glyph = np.asarray(draw_glyph(ink))
    assert glyph.shape == (GLYPH_SIZE, GLYPH_SIZE)
    rows, columns = np.nonzero(glyph > 128)
    cell = GLYPH_SIZE / 10  # one empty cell lies around the 8 x 8 ones
    assert abs(rows.mean() + 0.5 - 3.5 * cell) < 0.5
    assert abs(columns.mean() + 0.5 - 6.5 * cell) < 0.5


def test_ink_stands_out_from_its_paper() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        paper, ink = pick_pair(rng)
        assert abs(luminance(paper) - luminance(ink)) >= 0.4


def test_a_disc_has_the_area_of_a_circle() -> None:
    assert disc(100, 40.3, 55.8, 30.0).sum() == pytest.approx(np.pi * 30**2, rel=2e-3)


def test_average_precision_is_the_area_under_precision_that_only_falls() -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    from tools.train_detector import average_precision

    hits, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7], np.float32)
    assert average_precision(hits, scores, 2) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(hits[::-1], scores[::-1], 4) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert average_precision(np.zeros(0, bool), np.zeros(0, np.float32), 3) == 0


def test_an_anchor_finds_the_badge_that_it_overlaps_most() -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    from tools.train_detector import CONFIG, assign

    anchors = np.array([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2], [0.52, 0.5, 0.2, 0.2]], np.float32)
    badges = np.array([[7, 0.4, 0.4, 0.6, 0.6], [-1, -1, -1, -1, -1]], np.float32)
    classes, codes = assign(badges, anchors)
    assert classes.tolist() == [8, 0, 8]
    np.testing.assert_allclose(codes[0], 0, atol=1e-6)
    np.testing.assert_allclose(codes[2], [-1, 0, 0, 0], atol=1e-5)  # a tenth of its height above it
    assert CONFIG.ssd is not None
