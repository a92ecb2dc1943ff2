"""The report on a quantised network as a picture: a line per step, a point per layer.

Steps differ in the marks of their points and not in colour alone, so that a print in black and white says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw, ImageFont

from minimobile.calibration.report import QuantizationReport

WIDTH, HEIGHT, MARGIN, LEGEND = 960, 400, 56, 24
INK, GRID = "#374151", "#e5e7eb"
TEXT_SIZE, RADIUS = 14, 4
_TICK = 10  # decibels

Point = tuple[float, float]
Mark = Callable[[ImageDraw.ImageDraw, Point, str], None]


def _circle(draw: ImageDraw.ImageDraw, at: Point, colour: str) -> None:
    draw.ellipse(
        (at[0] - RADIUS, at[1] - RADIUS, at[0] + RADIUS, at[1] + RADIUS), fill="white", outline=colour, width=2
    )


def _square(draw: ImageDraw.ImageDraw, at: Point, colour: str) -> None:
    draw.rectangle((at[0] - RADIUS, at[1] - RADIUS, at[0] + RADIUS, at[1] + RADIUS), fill=colour)


def _triangle(draw: ImageDraw.ImageDraw, at: Point, colour: str) -> None:
    corners = [(at[0] - RADIUS, at[1] + RADIUS), (at[0] + RADIUS, at[1] + RADIUS), (at[0], at[1] - RADIUS)]
    draw.polygon(corners, fill=colour)


def _cross(draw: ImageDraw.ImageDraw, at: Point, colour: str) -> None:
    for side in (-RADIUS, RADIUS):
        draw.line((at[0] - RADIUS, at[1] - side, at[0] + RADIUS, at[1] + side), fill=colour, width=2)


def _disc(draw: ImageDraw.ImageDraw, at: Point, colour: str) -> None:
    draw.ellipse((at[0] - RADIUS, at[1] - RADIUS, at[0] + RADIUS, at[1] + RADIUS), fill=colour)


_STYLES: tuple[tuple[str, Mark], ...] = (
    ("#6b7280", _circle),
    ("#b45309", _cross),
    ("#7c3aed", _triangle),
    ("#15803d", _square),
    ("#1d4ed8", _disc),
)


def draw_report(report: QuantizationReport) -> Image.Image:
    """Return a chart of the signal-to-noise ratio of the layers' values, in order, after each step of the method.

    Without pictures there are no values: then it is that of the weights.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT_SIZE)
    lines = _read_lines(report)
    finite = [value for line in lines.values() for value in line if math.isfinite(value)]
    low = _TICK * math.floor(min(finite, default=0) / _TICK)
    high = max(low + _TICK, _TICK * math.ceil(max(finite, default=_TICK) / _TICK))

    def place(index: int, count: int, value: float) -> Point:
        x = MARGIN + (WIDTH - 2 * MARGIN) * index / max(1, count - 1)
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN - LEGEND) * (min(max(value, low), high) - low) / (high - low)

    for value in range(low, high + 1, _TICK):
        (_, y), (right, _) = place(0, 2, value), place(1, 2, value)
        draw.line((MARGIN, y, right, y), fill=GRID)
        draw.text((MARGIN - 8, y), f"{value} dB", INK, font, anchor="rm")
    for number, (name, line) in enumerate(lines.items()):
        colour, mark = _STYLES[number % len(_STYLES)]
        points = [place(index, len(line), value) for index, value in enumerate(line)]
        draw.line(points, fill=colour, width=1)
        left = MARGIN + 150 * number
        for point in (*points, (left + RADIUS, 18)):
            mark(draw, point, colour)
        draw.text((left + 3 * RADIUS + 4, 18), name, INK, font, anchor="lm")
    draw.text((MARGIN, HEIGHT - MARGIN + 14), "layers, from the first to the last", INK, font)
    return image


def _read_lines(report: QuantizationReport) -> Mapping[str, list[float]]:
    steps = list(report.layers[-1].steps)
    lines = {step: [layer.steps[step] for layer in report.layers] for step in steps}
    return lines or {"weights": [layer.weights for layer in report.layers if layer.weights is not None]}
