"""Charts of figures: bars with the part that could not be shorter, and points over a logarithmic axis.

Kinds differ in lightness or shape and not in colour alone, so that a print in black and white says the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from minimobile.errors import printable

INK, FAINT, GRID, PAPER = (30, 30, 30), (95, 100, 110), (225, 228, 233), (255, 255, 255)
DARK, LIGHT, ACCENT = (28, 63, 125), (150, 180, 226), (176, 72, 0)
MARGIN, ROW, BAR = 16, 18, 12
TITLE_SIZE, TEXT_SIZE = 16, 12
BAR_WIDTH = 420
PLOT = (560, 340)  # width, height of the field of points
RADIUS = 5


@dataclass(frozen=True)
class Bar:
    """A bar: its length, the part of it that is the limit, and what is written behind it."""

    name: str
    value: float
    limit: float
    text: str


@dataclass(frozen=True)
class Point:
    """A point: `y` None is a cost without a value, drawn on the lower edge; `shape` is "circle" or "square".

    One with a name is large, filled and labelled, one without is small and hollow.
    """

    x: float
    y: float | None
    shape: str
    name: str = ""


def draw_bars(bars: Sequence[Bar], title: str, note: str) -> Image.Image:
    """Return a chart with a row for every bar: dark up to its limit, light beyond."""
    title_font, font = map(ImageFont.load_default, (TITLE_SIZE, TEXT_SIZE))
    names = max((font.getlength(printable(bar.name)) for bar in bars), default=0)
    texts = max((font.getlength(bar.text) for bar in bars), default=0)
    left = MARGIN + math.ceil(names) + 8
    top = MARGIN + TITLE_SIZE + 12
    width = max(left + BAR_WIDTH + 8 + math.ceil(texts), MARGIN + math.ceil(title_font.getlength(title)))
    width = max(width, MARGIN + math.ceil(font.getlength(note))) + MARGIN
    image = Image.new("RGB", (width, top + ROW * len(bars) + 12 + TEXT_SIZE + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, INK, title_font)
    longest = max((bar.value for bar in bars), default=0) or 1.0
    for number, bar in enumerate(bars):
        y = top + ROW * number
        whole, part = (round(BAR_WIDTH * min(length, bar.value) / longest) for length in (bar.value, bar.limit))
        draw.text((left - 8, y + ROW // 2), printable(bar.name), INK, font, anchor="rm")
        middle = y + (ROW - BAR) // 2
        draw.rectangle((left, middle, left + max(whole, 1), middle + BAR), fill=LIGHT)
        draw.rectangle((left, middle, left + part, middle + BAR), fill=DARK)
        draw.text((left + whole + 8, y + ROW // 2), bar.text, INK, font, anchor="lm")
    draw.text((MARGIN, top + ROW * len(bars) + 10), note, FAINT, font)
    return image


def draw_points(points: Sequence[Point], title: str, axes: tuple[str, str], note: str) -> Image.Image:
    """Return a chart of points over a logarithmic axis; `axes` are the names of x and y, `note` stands below."""
    title_font, font = map(ImageFont.load_default, (TITLE_SIZE, TEXT_SIZE))
    left, top = MARGIN + 46, MARGIN + TITLE_SIZE + 32
    lines = note.splitlines()
    image = Image.new("RGB", (left + PLOT[0] + 150, top + PLOT[1] + 52 + 16 * len(lines) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, INK, title_font)
    decades = [math.log10(point.x) for point in points] or [0.0]
    low_x, high_x = math.floor(min(decades) * 2) / 2, math.ceil(max(decades) * 2 + 0.01) / 2
    values = [point.y for point in points if point.y is not None] or [0.0, 1.0]
    low_y, high_y = 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / (high_x - low_x)
        return left + PLOT[0] * across, top + PLOT[1] * (1 - (y - low_y) / max(high_y - low_y, 1))

    for value in range(low_y, high_y + 1, 5):
        _, y = place(10**low_x, value)
        draw.line((left, y, left + PLOT[0], y), fill=GRID)
        draw.text((left - 8, y), str(value), FAINT, font, anchor="rm")
    for exponent in range(math.floor(low_x), math.ceil(high_x) + 1):
        for step in (1, 3):
            tick = step * 10.0**exponent
            if low_x <= math.log10(tick) <= high_x:
                x, _ = place(tick, low_y)
                draw.line((x, top, x, top + PLOT[1]), fill=GRID)
                draw.text((x, top + PLOT[1] + 6), f"{tick:g}", FAINT, font, anchor="ma")
    draw.text((MARGIN, top - 22), axes[1], FAINT, font)
    draw.text((left + PLOT[0], top + PLOT[1] + 24), axes[0], FAINT, font, anchor="ra")
    taken: list[tuple[float, float, float, float]] = []
    for point in sorted(points, key=lambda point: bool(point.name)):
        x, y = place(point.x, low_y if point.y is None else point.y)
        _draw_marker(draw, point, x, y)
        if point.name:
            _write_name(draw, font, printable(point.name), (x + RADIUS + 6, y), taken)
    for number, line in enumerate(lines):
        draw.text((MARGIN, top + PLOT[1] + 46 + 16 * number), line, FAINT, font)
    return image


def _draw_marker(draw: ImageDraw.ImageDraw, point: Point, x: float, y: float) -> None:
    radius = RADIUS if point.name else RADIUS - 2
    fill = ACCENT if point.name and point.y is not None else PAPER
    outline = ACCENT if point.name else DARK
    shape = draw.ellipse if point.shape == "circle" else draw.rectangle
    shape((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=outline, width=2 if point.name else 1)


def _write_name(
    draw: ImageDraw.ImageDraw,
    font: Any,
    text: str,
    corner: tuple[float, float],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write a name beside its mark, above the names that stand there already."""
    (x, y), margin = corner, 3
    while True:
        left, top, right, bottom = draw.textbbox((x, y), text, font=font, anchor="lm")
        field = (left - margin, top - margin, right + margin, bottom + margin)
        if not any(field[0] < b[2] and b[0] < field[2] and field[1] < b[3] and b[1] < field[3] for b in taken):
            break
        y -= 2
    taken.append(field)
    draw.rectangle(field, fill=PAPER)
    draw.text((x, y), text, ACCENT, font, anchor="lm")
