"""The channels of feature maps as a picture: a panel per map, a cell per channel, and a colour bar with its numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from minimobile.errors import printable
from minimobile.tracing.colour_scales import colour_values

Array = NDArray[Any]
Point = tuple[int, int]  # x, y

MARGIN, GAP = 16, 6
TITLE_SIZE, TEXT_SIZE, NUMBER_SIZE = 16, 12, 10  # of the letters
HEAD_HEIGHT, NUMBER_HEIGHT, NUMBER_WIDTH = 48, 13, 26
BAR_HEIGHT, BAR_WIDTH, BAR_FOOT = 14, 256, 20
LARGEST_CELL, LARGEST_GRID = 160, 4096  # maps beyond it are thinned out
USUAL_GRID, SMALLEST_CELL = 512, 24  # maps below it are enlarged
SMALLEST_SIDE = 8
LONGEST_NAME = 16
INK, FRAME, PAPER = (40, 40, 40), (200, 200, 200), (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Where a panel's cells are. Every `step`-th pixel of a map is drawn, `scale_x` by `scale_y` pixels large."""

    count: int
    columns: int
    step: int
    scale_x: int
    scale_y: int
    cell_width: int
    cell_height: int
    caption_width: int = NUMBER_WIDTH
    caption_height: int = NUMBER_HEIGHT

    @property
    def cell_step(self) -> int:
        """From a cell's left side to the next one's."""
        return max(self.cell_width, self.caption_width) + GAP

    @property
    def grid_width(self) -> int:
        """Width of all cells of a row and the gaps between them."""
        return self.columns * self.cell_step - GAP

    @property
    def grid_height(self) -> int:
        """Height of all rows with their numbers, and the gaps between them."""
        return -(-self.count // self.columns) * (self.cell_height + self.caption_height + GAP) - GAP

    def corner(self, index: int) -> Point:
        """Return the upper left pixel of a cell, from the panel's own corner; its caption stands above it."""
        row, column = divmod(index, self.columns)
        top = HEAD_HEIGHT + row * (self.cell_height + self.caption_height + GAP) + self.caption_height
        return 1 + column * self.cell_step, top

    @property
    def bar_corner(self) -> Point:
        """The upper left pixel of the colour bar, from the panel's own corner."""
        return 1, HEAD_HEIGHT + self.grid_height + 2 * GAP


def lay_out(count: int, height: int, width: int) -> Layout:
    """Return the layout for `count` maps of `height` x `width`: about square, and bounded whatever the maps' size."""
    columns = max(1, min(count, math.ceil(math.sqrt(count * min(4.0, max(0.25, height / width))))))
    step = -(-max(height, width) // max(SMALLEST_CELL, min(LARGEST_CELL, LARGEST_GRID // columns)))
    rows_drawn, columns_drawn = -(-height // step), -(-width // step)
    usual = max(SMALLEST_CELL, min(LARGEST_CELL, USUAL_GRID // columns))
    scale = max(1, usual // max(rows_drawn, columns_drawn))
    scale_x, scale_y = (max(scale, -(-SMALLEST_SIDE // drawn)) for drawn in (columns_drawn, rows_drawn))
    return Layout(count, columns, step, scale_x, scale_y, columns_drawn * scale_x, rows_drawn * scale_y)


def draw_channels(
    maps: Mapping[str, Array],
    channels: int = 64,
    names: Mapping[str, Sequence[str]] | None = None,
    per_channel: bool = False,
) -> Image.Image:
    """Return the first `channels` channels of each map as a picture, the maps side by side under their names.

    Each map has a colour scale of its own over all that is drawn of it, given by the bar below: dark blue to yellow
    where nothing is negative, else blue below zero, white at it and orange above. NaN and infinities are magenta.
    Channels are called by their numbers, and by `names`, {map: a name for each channel}, where it has the map. With
    `per_channel`, each channel has a scale of its own, of the same kind for the whole map, and its range above it.

    Shapes: each map (C, H, W), or (C) for single pixels.
    """
    panels = [
        _draw_panel(name, values, channels, (names or {}).get(name), per_channel) for name, values in maps.items()
    ]
    width = sum(panel.width + 2 * MARGIN for panel in panels)
    picture = Image.new("RGB", (width, max(panel.height for panel in panels) + 2 * MARGIN), PAPER)
    left = MARGIN
    for panel in panels:
        picture.paste(panel, (left, MARGIN))
        left += panel.width + 2 * MARGIN
    return picture


def _draw_panel(name: str, values: Array, channels: int, names: Sequence[str] | None, per_channel: bool) -> Image.Image:
    maps = values.reshape(len(values), *(values.shape[1:] or (1, 1)))
    shown = maps[:channels]
    title_font, text_font, number_font = map(ImageFont.load_default, (TITLE_SIZE, TEXT_SIZE, NUMBER_SIZE))
    ranges = [_find_range(channel) for channel in shown] if per_channel else [_find_range(shown)] * len(shown)
    captions = [_caption(index, names, ranges[index] if per_channel else None) for index in range(len(shown))]
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    widest = max((number_font.getlength(line) for text in captions for line in text.splitlines()), default=0)
    layout = lay_out(*shown.shape)
    layout = dataclasses.replace(
        layout, caption_width=max(NUMBER_WIDTH, math.ceil(widest)), caption_height=lines * NUMBER_HEIGHT
    )
    low, high = _find_range(shown)
    notes = "; ".join(_describe(maps, shown, layout, per_channel))
    title = f"{name}: {'x'.join(map(str, maps.shape))}"
    text_width = max(title_font.getlength(title), text_font.getlength(notes))
    width = max(layout.grid_width, BAR_WIDTH, math.ceil(text_width)) + 2
    bar_left, bar_top = layout.bar_corner
    panel = Image.new("RGB", (width, bar_top + BAR_HEIGHT + BAR_FOOT), PAPER)
    draw = ImageDraw.Draw(panel)
    draw.text((0, 0), title, INK, title_font)
    draw.text((0, TITLE_SIZE + GAP), notes, INK, text_font)
    for index, (channel, caption) in enumerate(zip(shown, captions, strict=True)):
        start, end = ranges[index]
        if per_channel and low < 0:  # a channel that is all positive has its map's kind of scale, too
            end = max(-start, end) or 1.0
            start = -end
        colours = colour_values(channel[:: layout.step, :: layout.step], start, end)  # (H, W, 3)
        cell = colours.repeat(layout.scale_y, axis=0).repeat(layout.scale_x, axis=1)
        left, top = layout.corner(index)
        for number, line in enumerate(caption.splitlines()):
            draw.text((left, top - layout.caption_height + number * NUMBER_HEIGHT - 1), line, INK, number_font)
        _paste_framed(draw, panel, cell, (left, top))
    ends = f"{low:.4g}", f"{high:.4g}"
    if per_channel:
        low, high = (-1.0, 1.0) if low < 0 else (0.0, 1.0)
        ends = ("below zero", "above, of each") if low < 0 else ("least of each", "most of each")
    ramp = colour_values(np.linspace(low, high, BAR_WIDTH), low, high)
    _paste_framed(draw, panel, np.tile(ramp, (BAR_HEIGHT, 1, 1)), (bar_left, bar_top))
    _write_ticks(draw, ends, low, high, (bar_left, bar_top + BAR_HEIGHT + 2), text_font)
    return panel


def _find_range(values: Array) -> tuple[float, float]:
    """Return the smallest and the largest finite value, or zeros."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _caption(index: int, names: Sequence[str] | None, span: tuple[float, float] | None) -> str:
    """Return a channel's number and name, and on a second line its range."""
    name = "" if names is None else printable(names[index].partition(",")[0])
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 3]}..."
    first = f"{index}: {name}" if name else str(index)
    return first if span is None else f"{first}\n{span[0]:.3g} to {span[1]:.3g}"


def _paste_framed(draw: ImageDraw.ImageDraw, panel: Image.Image, colours: NDArray[np.uint8], corner: Point) -> None:
    """Paste (H, W, 3) colours, in a frame one pixel wide: white cells are to be seen on white paper."""
    (left, top), (height, width, _) = corner, colours.shape
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)
    panel.paste(Image.fromarray(colours), corner)


def _describe(maps: Array, shown: Array, layout: Layout, per_channel: bool) -> Iterator[str]:
    yield f"all {len(maps)} channels" if len(shown) == len(maps) else f"channels 0 to {len(shown) - 1}"
    if layout.step > 1:
        yield f"one pixel in {layout.step}"
    if per_channel:
        yield "a scale for each channel"
    if not np.isfinite(shown).all():
        yield "magenta: not finite"


def _write_ticks(
    draw: ImageDraw.ImageDraw, ends: tuple[str, str], low: float, high: float, corner: Point, font: Any
) -> None:
    """Write texts under the ends of the bar, and 0 where it lies well between them."""
    left, top = corner
    draw.text((left, top), ends[0], INK, font, anchor="la")
    draw.text((left + BAR_WIDTH, top), ends[1], INK, font, anchor="ra")
    if low < 0 < high:
        zero = BAR_WIDTH * low / (low - high)
        if font.getlength(ends[0]) + 2 * GAP < zero < BAR_WIDTH - font.getlength(ends[1]) - 2 * GAP:
            draw.text((left + zero, top), "0", INK, font, anchor="ma")
