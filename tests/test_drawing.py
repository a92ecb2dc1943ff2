"""A segmentation drawn: PASCAL VOC's palette, masks that hold class ids, overlays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from minimobile.errors import InputError
from minimobile.imaging.drawing import draw_mask, draw_overlay, palette


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
