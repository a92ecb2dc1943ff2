"""The picture of a layer's channels: where every cell is, and that its colours are those of its values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimobile.tracing.channel_grid import (
    BAR_FOOT,
    BAR_HEIGHT,
    BAR_WIDTH,
    LARGEST_GRID,
    MARGIN,
    draw_channels,
    lay_out,
)
from minimobile.tracing.colour_scales import NOT_FINITE, colour_values, diverging_scale, sequential_scale

BLUE, WHITE, ORANGE = (diverging_scale()[index].tolist() for index in (0, 127, 254))
DARK, LIGHT = (sequential_scale()[index].tolist() for index in (0, 254))


def cells(picture: np.ndarray, maps: np.ndarray, left: int = 0) -> np.ndarray:
    """Cut the cells out of a picture's panel and shrink them back to one pixel per value: (C, H, W, 3)."""
    layout = lay_out(*maps.shape)
    found = []
    for index in range(layout.count):
        x, y = layout.corner(index)
        x, y = x + MARGIN + left, y + MARGIN
        cell = picture[y : y + layout.cell_height, x : x + layout.cell_width]
        blocks = cell.reshape(-1, layout.scale_y, cell.shape[1] // layout.scale_x, layout.scale_x, 3)
        assert (blocks == blocks[:, :1, :, :1]).all(), "each value is a block of one colour"
        found.append(blocks[:, 0, :, 0])
    return np.array(found)


def bar(picture: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Cut the colour bar out of a picture of one panel."""
    left, top = (offset + MARGIN for offset in lay_out(*maps.shape).bar_corner)
    return picture[top : top + BAR_HEIGHT, left : left + BAR_WIDTH]


def test_every_cell_has_the_colours_of_its_values_and_the_bar_those_from_smallest_to_largest() -> None:
    maps = np.random.default_rng(0).uniform(-3, 5, (10, 6, 7)).astype(np.float32)
    maps[0, 0, :3] = -4, 0, 6
    picture = np.asarray(draw_channels({"layer.0": maps}))
    found = cells(picture, maps)
    np.testing.assert_array_equal(found, colour_values(maps, -4, 6))
    assert found[0, 0, 1].tolist() == WHITE
    assert found[0, 0, 2].tolist() == ORANGE
    assert found[0, 0, 0].tolist() == diverging_scale()[127 - 85].tolist(), "-4 is two thirds of the way from 0 to -6"
    assert bar(picture, maps)[3, 0].tolist() == found[0, 0, 0].tolist()
    assert bar(picture, maps)[3, -1].tolist() == ORANGE


def test_values_from_zero_up_have_the_other_scale() -> None:
    maps = np.array([0, 1, 3, 6], np.float32).reshape(1, 2, 2)
    picture = np.asarray(draw_channels({"layer.0": maps}))
    assert cells(picture, maps)[0, 0, 0].tolist() == DARK
    assert cells(picture, maps)[0, 1, 0].tolist() == sequential_scale()[127].tolist()
    assert cells(picture, maps)[0, 1, 1].tolist() == LIGHT
    assert [bar(picture, maps)[0, x].tolist() for x in (0, BAR_WIDTH - 1)] == [DARK, LIGHT]


def test_maps_stand_side_by_side_each_with_its_own_scale() -> None:
    maps = {"expand": np.full((4, 8, 8), 6.0), "project": np.full((2, 4, 4), -1.0)}
    maps["expand"][0, 0, 0] = 0
    picture = draw_channels(maps)
    alone = [draw_channels({name: values}) for name, values in maps.items()]
    assert picture.size == (alone[0].width + alone[1].width, max(part.height for part in alone))
    left = alone[0].width
    assert cells(np.asarray(picture), maps["expand"])[1, 0, 0].tolist() == LIGHT
    assert cells(np.asarray(picture), maps["project"], left)[1, 3, 3].tolist() == BLUE


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [((1001,), (64, 1, 1)), ((3, 1, 1001), (3, 1, 1001)), ((2, 300, 1), (2, 300, 1)), ((70, 300, 200), (64, 300, 200))],
)
def test_odd_shapes(shape: tuple[int, ...], drawn: tuple[int, int, int]) -> None:
    maps = np.random.default_rng(1).uniform(0, 1, shape)
    picture = draw_channels({"x": maps})
    shown = maps[:64].reshape(drawn)
    layout = lay_out(*drawn)
    expected = colour_values(shown[:, :: layout.step, :: layout.step], shown.min(), shown.max())
    np.testing.assert_array_equal(cells(np.asarray(picture), shown), expected)
    assert picture.height == layout.bar_corner[1] + BAR_HEIGHT + BAR_FOOT + 2 * MARGIN


@given(
    count=st.integers(1, 2048),
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
)
def test_pictures_are_bounded_and_cells_apart(count: int, height: int, width: int) -> None:
    layout = lay_out(count, height, width)
    assert max(layout.grid_width, layout.grid_height) <= 2.5 * LARGEST_GRID
    assert min(layout.cell_width, layout.cell_height) >= 8
    corners = np.array([layout.corner(index) for index in range(count)])
    assert len(np.unique(corners, axis=0)) == count
    across = np.diff(np.unique(corners[:, 0]))
    down = np.diff(np.unique(corners[:, 1]))
    assert (across > layout.cell_width + 1).all() and (down > layout.cell_height + 1).all()


@pytest.mark.parametrize("scale", [sequential_scale, diverging_scale])
def test_lightness_tells_the_order_without_colour(scale) -> None:  # type: ignore[no-untyped-def]
    """Relative luminance (IEC 61966-2-1) rises along the scale; for the diverging one, from both ends to zero."""
    colours = scale() / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert len(luminance) == 255
    rising = [luminance] if scale is sequential_scale else [luminance[:128], luminance[:126:-1]]
    for half in rising:
        assert (np.diff(half) > -1e-3).all(), "but for the rounding to 8 bits"
        assert half[-1] > 5 * half[0]


def test_the_two_signs_stay_apart_for_eyes_without_green_cones() -> None:
    """Deuteranopia as a matrix on linear sRGB (Machado, Oliveira and Fernandes 2009, severity 1.0)."""
    matrix = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    colours = diverging_scale() / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.4)
    apart = np.abs(seen[:64] - seen[:190:-1]).max(axis=1)
    assert apart.min() > 0.2


def test_what_is_not_finite_is_magenta_and_does_not_set_the_scale() -> None:
    maps = np.array([[[np.nan, np.inf], [0.0, 2.0]]])
    picture = np.asarray(draw_channels({"x": maps}))
    found = cells(picture, maps)[0]
    assert found[0].tolist() == [list(NOT_FINITE)] * 2
    assert found[1].tolist() == [DARK, LIGHT]
    assert not (colour_values(np.linspace(-1, 1, 999), -1, 1) == NOT_FINITE).all(axis=1).any()
    assert cells(np.asarray(draw_channels({"x": maps[:, :1]})), maps[:, :1])[0, 0, 0].tolist() == list(NOT_FINITE)


@pytest.mark.parametrize(("value", "colour"), [(0.0, DARK), (2.5, DARK), (-2.5, BLUE)])
def test_a_constant_map(value: float, colour: list[int]) -> None:
    maps = np.full((2, 3, 3), value)
    assert cells(np.asarray(draw_channels({"x": maps})), maps)[1, 2, 2].tolist() == colour


def test_each_channel_has_a_scale_of_its_own_on_request() -> None:
    maps = np.zeros((4, 8, 8), np.float32)
    maps[0, 0] = 1  # small, large, negative, nothing
    maps[1, 0] = 100
    maps[2, 0] = -3
    pixels = np.asarray(draw_channels({"layer.0": maps}, per_channel=True)).reshape(-1, 3)
    found = {tuple(colour) for colour in pixels.tolist()}
    assert {tuple(BLUE), tuple(ORANGE), tuple(WHITE)} <= found
    assert draw_channels({"layer.0": maps * 7}).size == draw_channels({"layer.0": maps}).size
    positive = np.asarray(draw_channels({"x": maps[:2]}, per_channel=True))
    whole = np.asarray(draw_channels({"x": maps[:2]}))
    assert (positive == LIGHT).all(axis=2).sum() > (whole == LIGHT).all(axis=2).sum(), "the small channel is light, too"


def test_channels_are_called_by_their_classes() -> None:
    maps = np.zeros((2, 8, 8), np.float32)
    named = draw_channels({"x": maps}, names={"x": ["tabby, tabby cat", "a\x1b" + "b" * 40]})
    assert named.tobytes() == draw_channels({"x": maps}, names={"x": ["tabby", "a\x1b" + "b" * 50]}).tobytes()
    assert named.tobytes() != draw_channels({"x": maps}).tobytes()
    assert draw_channels({"x": maps}, names={"y": ["a", "b"]}).tobytes() == draw_channels({"x": maps}).tobytes()
