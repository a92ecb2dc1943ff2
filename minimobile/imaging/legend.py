"""Names for the colours of a segmentation: in the regions that have room for them, and in a legend below the picture.

A name stands in every region large enough, so that a picture can be read without its colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from minimobile.errors import printable
from minimobile.imaging.drawing import palette

CELLS = 96  # the longer side of the grid on which regions are told apart
LEAST_TEXT, TEXT_SHARE = 11, 28  # pixels that letters have at least; the part of the shorter side that they have else
LONGEST_NAME = 24
INK, PAPER, FRAME = (20, 20, 20), (255, 255, 255), (120, 120, 120)


def choose_font(size: tuple[int, int]) -> Any:
    """Return the font for a picture of (width, height), or (height, width)."""
    return ImageFont.load_default(max(LEAST_TEXT, min(size) / TEXT_SHARE))


def write_names(drawn: Image.Image, classes: NDArray[np.integer[Any]], labels: Mapping[int, str]) -> None:
    """Write the name of its class into each connected region but those of class 0 that has room for it.

    Shapes: classes (H, W), of the picture's own size; below, there may be a legend.
    """
    draw, font = ImageDraw.Draw(drawn), choose_font(classes.shape)
    step = max(1, -(-max(classes.shape) // CELLS))
    grid = classes[step // 2 :: step, step // 2 :: step]
    for index, region in _find_regions(grid):
        text = _shorten(labels.get(index, str(index)))
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        margin = max(2, int(bottom - top) // 4)
        width, height = int(right - left) + 2 * margin, int(bottom - top) + 2 * margin
        corner = _find_room(region, -(-height // step) + 1, -(-width // step) + 1)
        if corner is None:
            continue
        y, x = (step * corner[0], step * corner[1])
        plate = (x, y, x + width - 1, y + height - 1)
        draw.rectangle(plate, fill=PAPER, outline=INK)
        draw.text((x + margin - left, y + margin - top), text, INK, font)


@dataclass(frozen=True)
class Legend:
    """A legend laid out for a picture's width: `height` is what it adds, `places` are the corners of its fields."""

    entries: Sequence[Mapping[str, Any]]
    texts: Sequence[str]
    places: Sequence[tuple[int, int]]
    height: int
    line: int
    font: Any

    def draw(self, picture: Image.Image, top: int) -> None:
        """Draw each class's colour and text, from row `top` on; the field of class 0, which is not tinted, is empty."""
        draw = ImageDraw.Draw(picture)
        colours = palette()
        for entry, text, (left, y) in zip(self.entries, self.texts, self.places, strict=True):
            fill = tuple(map(int, colours[entry["index"]])) if entry["index"] else PAPER
            draw.rectangle((left, top + y, left + self.line - 1, top + y + self.line - 1), fill=fill, outline=FRAME)
            draw.text((left + 3 * self.line // 2, top + y), text, INK, self.font)


def lay_out(size: tuple[int, int], entries: Sequence[Mapping[str, Any]]) -> Legend:
    """Lay out a legend for a picture of (width, height): classes with names and shares, as in `Segmentation.shares`.

    Below a picture that is narrower than one of them there is none: it would be cut off.
    """
    font = choose_font(size)
    texts = tuple(f"{_shorten(entry['label'])}: {100 * entry['share']:.1f} %" for entry in entries)
    line = sum(font.getmetrics())
    gap = line // 2
    widths = [3 * line // 2 + int(font.getlength(text)) + 2 * gap for text in texts]
    if max(widths, default=0) > size[0]:
        return Legend((), (), (), 0, line, font)
    places: list[tuple[int, int]] = []
    x = y = gap
    for width in widths:
        if x > gap and x + width > size[0]:
            x, y = gap, y + line + gap
        places.append((x, y))
        x += width
    return Legend(tuple(entries), texts, tuple(places), y + line + gap, line, font)


def _shorten(label: str) -> str:
    """Return the first of a class's names, and of a long one the beginning.

    >>> _shorten("tabby, tabby cat")
    'tabby'
    """
    name = printable(label.partition(",")[0].strip())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _find_regions(grid: NDArray[np.integer[Any]]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield the class and the cells of every connected region of cells, but for those of class 0."""
    left = grid != 0
    for place in zip(*np.nonzero(left), strict=True):
        if not left[place]:
            continue
        same = grid == grid[place]
        region, reached = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
        reached[place] = True
        while not np.array_equal(region, reached):  # a step in each direction, as often as anything is added
            region = reached.copy()
            reached[1:] |= region[:-1]
            reached[:-1] |= region[1:]
            reached[:, 1:] |= region[:, :-1]
            reached[:, :-1] |= region[:, 1:]
            reached &= same
        left &= ~region
        yield int(grid[place]), region


def _find_room(region: NDArray[np.bool_], rows: int, columns: int) -> tuple[int, int] | None:
    """Return the upper left cell of the `rows` x `columns` cells inside a region that lie nearest to its middle."""
    height, width = region.shape
    if rows > height or columns > width:
        return None
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = region.cumsum(0).cumsum(1)
    inside = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    fits = np.argwhere(inside == rows * columns)
    if not len(fits):
        return None
    middle = np.argwhere(region).mean(0) - np.array([rows - 1, columns - 1]) / 2
    y, x = fits[((fits - middle) ** 2).sum(1).argmin()]
    return int(y), int(x)
