"""The report on a quantised network as a picture: a line per step, a point per layer."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from minimobile.calibration.report import QuantizationReport

WIDTH, HEIGHT, MARGIN, LEGEND = 960, 400, 40, 20
_COLOURS = ("#9aa5b1", "#d98c21", "#8a5cc2", "#2f9e58", "#2563c9")
_TICK = 10  # decibels


def draw_report(report: QuantizationReport) -> Image.Image:
    """Return a chart of the signal-to-noise ratio of the layers' values, in order, after each step of the method.

    Without pictures there are no values: then it is that of the weights.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    steps = list(report.layers[-1].steps)
    lines = {step: [layer.steps[step] for layer in report.layers] for step in steps}
    if not lines:
        lines = {"weights": [layer.weights for layer in report.layers if layer.weights is not None]}
    finite = [value for line in lines.values() for value in line if math.isfinite(value)]
    low = _TICK * math.floor(min(finite, default=0) / _TICK)
    high = max(low + _TICK, _TICK * math.ceil(max(finite, default=_TICK) / _TICK))

    def place(index: int, count: int, value: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * index / max(1, count - 1)
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN - LEGEND) * (min(max(value, low), high) - low) / (high - low)

    for value in range(low, high + 1, _TICK):
        (_, y), (right, _) = place(0, 2, value), place(1, 2, value)
        draw.line((MARGIN, y, right, y), fill="#e5e7eb")
        draw.text((4, y - 6), f"{value} dB", fill="#374151")
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        draw.line([place(index, len(line), value) for index, value in enumerate(line)], fill=colour, width=2)
        draw.text((MARGIN + 110 * number, 8), name, fill=colour)
    draw.text((MARGIN, HEIGHT - MARGIN + 10), "layers, from the first to the last", fill="#374151")
    return image
