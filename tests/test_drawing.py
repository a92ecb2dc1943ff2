"""A segmentation drawn: PASCAL VOC's palette, masks that hold class ids, overlays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from minimobile.errors import InputError
from minimobile.imaging import drawing
from minimobile.imaging.drawing import draw_mask, draw_overlay, palette
from minimobile.imaging.legend import lay_out, write_names


def test_the_palette_is_pascal_voc_s() -> None:
    """The first 21 colours as the PASCAL VOC development kit prints them."""
    published = [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
        (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
        (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    ]  # fmt: skip
    assert [tuple(colour) for colour in palette()[:21].tolist()] == published
    assert palette()[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette(), axis=0)) == 256


def test_a_mask_holds_the_ids_themselves() -> None:
    ids = np.array([[0, 1, 255], [7, 7, 2]])
    mask = draw_mask(ids)
    np.testing.assert_array_equal(np.asarray(mask), ids)
    assert mask.convert("RGB").getpixel((1, 0)) == (128, 0, 0)


def test_more_classes_than_a_palette_holds() -> None:
    with pytest.raises(InputError, match=r"expected class ids below 256.*got 256"):
        draw_mask(np.array([[0, 256]]))


def test_an_overlay_keeps_the_background_and_tints_the_rest() -> None:
    photo = Image.new("RGB", (7, 5), (100, 50, 200))
    classes = np.zeros((5, 7), np.int64)
    classes[:, 3:] = 1
    drawn = np.asarray(draw_overlay(photo, classes))
    assert (drawn[:, :3] == (100, 50, 200)).all()
    assert (drawn[:, 3] == 255).all(), "the outline"
    assert (drawn[:, 4:] == (117, 20, 80)).all(), "0.4 of the photo and 0.6 of (128, 0, 0), rounded"


def test_an_overlay_is_drawn_in_bands_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    photo = Image.fromarray(generator.integers(0, 256, (40, 30, 3)).astype(np.uint8))
    classes = np.kron(generator.integers(0, 3, (8, 6)), np.ones((5, 5), np.uint8))
    whole = np.asarray(draw_overlay(photo, classes, 0.3, footer=4))
    monkeypatch.setattr(drawing, "_BAND_PIXELS", 70)
    np.testing.assert_array_equal(np.asarray(draw_overlay(photo, classes, 0.3, footer=4)), whole)
    assert (whole[40:] == 255).all()
    assert np.array_equal(np.asarray(draw_overlay(photo, np.zeros_like(classes))), np.asarray(photo))


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan"), "x", True])
def test_an_alpha_is_a_share(alpha: Any) -> None:
    with pytest.raises(InputError, match=r"alpha: expected the share of the colours, from 0 to 1, got"):
        draw_overlay(Image.new("RGB", (3, 3)), np.zeros((3, 3), np.uint8), alpha)


def test_names_stand_in_the_regions_that_have_room() -> None:
    classes = np.zeros((200, 300), np.uint8)
    classes[10:90, 10:140] = 1  # room for a name
    classes[120:190, 150:290] = 1  # and another region of that class
    classes[150:156, 20:26] = 2  # too small
    photo = Image.new("RGB", (300, 200))
    write_names(photo, classes, {1: "one", 2: "two"})
    written = np.asarray(photo).any(axis=2)
    assert written[10:90, 10:140].any() and written[120:190, 150:290].any()
    assert not written[classes != 1].any(), "no name sticks out of its region"
    alone = Image.new("RGB", (300, 200))
    write_names(alone, classes, {1: "a name that is far too long for the region " * 3, 2: "two"})
    assert np.asarray(alone).any(), "it is shortened"


def test_a_legend_has_a_field_for_every_class() -> None:
    entries = [{"index": index, "label": f"class {index}, also", "share": 0.25} for index in range(4)]
    legend = lay_out((120, 90), entries)
    assert legend.texts[1] == "class 1: 25.0 %"
    assert len(set(legend.places)) == 4 and all(y + legend.line <= legend.height for _, y in legend.places)
    picture = Image.new("RGB", (120, 90 + legend.height), "white")
    legend.draw(picture, 90)
    pixels = np.asarray(picture)
    assert (pixels[:90] == 255).all()
    for entry, (x, y) in zip(entries, legend.places, strict=True):
        colour = palette()[entry["index"]] if entry["index"] else (255, 255, 255)
        assert (pixels[90 + y + 3, x + 3] == colour).all()


def test_a_legend_that_would_be_cut_off_is_left_out() -> None:
    entries = [{"index": index, "label": f"class {index}", "share": 0.5} for index in range(2)]
    for size in ((1, 1), (17, 13), (20, 1200), (60, 60)):
        legend = lay_out(size, entries)
        assert (legend.texts, legend.height) == ((), 0)
        legend.draw(Image.new("RGB", size), size[1])
    assert len(lay_out((150, 13), entries).texts) == 2


def test_a_hostile_label_is_shown_as_text() -> None:
    assert lay_out((190, 90), [{"index": 1, "label": "a\x1b[2J\n", "share": 1.0}]).texts == ("a\\x1b[2J: 100.0 %",)
