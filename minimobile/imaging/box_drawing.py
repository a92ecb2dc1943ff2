"""Boxes with labels and scores, drawn on a photo so that they can be read on any background."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
DARK = (0, 0, 0)
LEAST_TEXT = 11  # pixels; smaller letters cannot be told apart


def choose_colour(index: int) -> Colour:
    """Return a strong colour for a class; those of neighbouring numbers are far apart.

    >>> choose_colour(0), choose_colour(1)
    ((255, 115, 115), (115, 163, 255))
    """
    red, green, blue = colorsys.hsv_to_rgb(index * 0.6094 % 1.0, 0.55, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(photo: Image.Image, found: Sequence[dict[str, Any]]) -> Image.Image:
    """Return the photo with a box and a caption for each of `found`, as `detect` lists them; the best is drawn last.

    A box that reaches beyond the photo, be it infinitely far, is cut off; one that has NaN is left out.
    A line is coloured between two dark ones; a caption is written dark on a field of its class's colour, above its box
    where there is room, else inside. A photo that is too small for a caption has the box alone.
    """
    drawn = photo.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    width, height = drawn.size
    line = max(1, round(min(width, height) / 250))
    font = ImageFont.load_default(max(LEAST_TEXT, min(width, height) / 28))
    for item in reversed(found):
        colour = choose_colour(item["index"])
        sides = [item["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
        if any(map(math.isnan, sides)):
            continue
        left, right = (round(min(max(side, 0), width - 1)) for side in (sides[0], sides[2]))
        top, bottom = (round(min(max(side, 0), height - 1)) for side in (sides[1], sides[3]))
        if right < left or bottom < top:
            continue
        for inset, tint in ((-line, DARK), (0, colour), (line, DARK)):
            corners = (left + inset, top + inset, right - inset, bottom - inset)
            if corners[2] >= corners[0] and corners[3] >= corners[1]:
                draw.rectangle(corners, outline=tint, width=line)
        _write_caption(draw, font, f"{item['label']} {item['score']:.2f}", (left, top), (width, height), colour, line)
    return drawn


def _write_caption(
    draw: ImageDraw.ImageDraw,
    font: Any,
    text: str,
    corner: tuple[int, int],
    size: tuple[int, int],
    colour: Colour,
    line: int,
) -> None:
    """Write a caption at a box's upper left corner, wholly inside the picture; none where it does not fit there."""
    start, top, end, bottom = draw.textbbox((0, 0), text, font=font)
    margin = 2 * line
    width, height = round(end - start) + 2 * margin, round(bottom - top) + 2 * margin
    if width > size[0] or height > size[1]:
        return
    x = max(0, min(corner[0] - line, size[0] - width))
    y = corner[1] - line - height if corner[1] - line - height >= 0 else min(corner[1], max(0, size[1] - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour, outline=DARK, width=line)
    draw.text((x + margin - start, y + margin - top), text, fill=DARK, font=font)
