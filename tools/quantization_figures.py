"""The figures of docs/quantisation.md, from layers of the embedded models: `python -m tools.quantization_figures`.

Writes SVG files to docs/quantisation/; a test draws them again and compares every character.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import minimobile as mm
from minimobile.calibration.bias_correction import mean_shift
from minimobile.calibration.folding import FoldedNetwork, fold
from minimobile.calibration.observation import Observed, observe
from minimobile.calibration.pixels import Pictures
from minimobile.calibration.ranges import min_max, squared_error
from minimobile.calibration.weight_grids import round_per_channel, round_per_tensor

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "quantisation"
DEMO = "minimobile/demo/"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 260, 64, 34, 40
GREY, ORANGE, BLUE = "#6b7280", "#c2711a", "#2563c9"


class Figure:
    """One chart: x and y run over given limits, from the left and from the bottom."""

    def __init__(self, title: str, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Begin with the title, in grey above the chart."""
        self.x, self.y = x, y
        self.parts: list[str] = []
        self.text(LEFT, 20, title, GREY)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies, in pixels."""
        right, down = WIDTH - LEFT - 20, HEIGHT - TOP - BOTTOM
        return (
            LEFT + right * (x - self.x[0]) / (self.x[1] - self.x[0]),
            TOP + down * (self.y[1] - y) / (self.y[1] - self.y[0]),
        )

    def text(self, x: float, y: float, words: str, colour: str, anchor: str = "start") -> None:
        """Add words at a place in pixels."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>')

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: str, dash: str = "") -> None:
        """Add a line between two points of the chart; `dash` is SVG's."""
        (x0, y0), (x1, y1) = self.place(*start), self.place(*end)
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        self.parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" {style}/>')

    def bar(self, x: float, width: float, y: float, colour: str) -> None:
        """Add a bar from zero, or from the bottom, to y."""
        base = max(self.y[0], 0.0)
        (left, top), (right, low) = self.place(x, max(y, base)), self.place(x + width, min(y, base))
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{low - top:.1f}" fill="{colour}"/>'
        )

    def axis(self, ticks: Mapping[float, str], words: str, below: Sequence[float] = ()) -> None:
        """Add names at the left, each with a line, numbers below the chart, and words below these."""
        for x in below:
            at, low = self.place(x, self.y[0])
            self.text(at, low + 15, f"{x:g}", GREY, "middle")
        for y, name in ticks.items():
            self.line((self.x[0], y), (self.x[1], y), "#e5e7eb")
            left, at = self.place(self.x[0], y)
            self.text(left - 6, at + 4, name, GREY, "end")
        self.text(LEFT, HEIGHT - 8, words, GREY)

    def write(self, path: Path) -> None:
        """Write the file."""
        start = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        )
        path.write_text("\n".join([start, *self.parts, "</svg>"]) + "\n", encoding="utf-8", newline="\n")


def see(source: str, pictures: Sequence[str]) -> tuple[FoldedNetwork, Mapping[str, Observed]]:
    """Return a model's folded network and what its maps held for the pictures."""
    model = mm.load(source, num_threads=1)
    network = fold(model.graph, model.state_dict())
    return network, observe(network, Pictures(model, list(pictures)), 1, source)


def draw_ranges(path: Path) -> None:
    """Draw how often the values of a map without activation come up, and two choices of its range."""
    name = "conv_stem.reduce_1x1"
    seen = see("demo:scenes", [f"{DEMO}scene.png"])[1][name]
    edges = np.linspace(-12, 12, 97)
    counts, _ = np.histogram(seen.values(), edges, weights=seen.counts)
    heights = np.log10(np.maximum(counts, 1))
    figure = Figure(f"{name} of demo:scenes: {int(counts.sum()):,} values", (-12, 12), (0, 5))
    figure.axis({float(power): f"{10**power:,}" for power in range(5)}, "value; how often it comes up, on a log scale",
                (-10, -5, 0, 5, 10))  # fmt: skip
    for left, height in zip(edges[:-1], heights, strict=True):
        figure.bar(float(left), 0.22, float(height), "#cbd5e1")
    for choose, colour, at in ((min_max, ORANGE, 4.75), (squared_error, BLUE, 4.35)):
        low, high = choose(seen)
        for end in (low, high):
            figure.line((end, 0), (end, at), colour, "4 3")
        step = (high - low) / 255
        words = f"{choose.__name__}: {low:.2f} to {high:.2f}, steps of {step:.4f}"
        figure.text(figure.place(0, 0)[0], figure.place(0, at)[1], words, colour, "middle")
    figure.write(path)


def draw_channels(path: Path) -> None:
    """Draw how many steps each channel of a depthwise layer has left with one scale for all, and with its own."""
    name = "layer.10.conv_3x3"
    network, _ = see("demo:scenes", [f"{DEMO}scene.png"])
    weight = network.weights[network.graph.node(name).weights["weight"]]
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    order = np.argsort(-largest, kind="stable")
    steps = largest / float(round_per_tensor(weight, "nearest").scales[0])
    own = largest / round_per_channel(weight, largest, "nearest").scales.astype(np.float64)
    figure = Figure(f"{name} of demo:scenes: {len(weight)} filters of 3 x 3", (0, len(weight)), (0, 220))
    ticks = {float(step): str(step) for step in (0, 32, 64, 127, 200)}
    figure.axis(ticks, "channels, by their largest weight; how many steps that is")
    for place, channel in enumerate(order):
        figure.bar(place, 0.7, float(steps[channel]), ORANGE)
    figure.line((0, float(own.min())), (len(own), float(own.max())), BLUE, "4 3")
    right = WIDTH - 20
    figure.text(right, figure.place(0, 137)[1], "a scale per channel: 127 steps for each", BLUE, "end")
    words = (
        f"one scale for all: {steps.max():.0f} steps for the largest, at most {np.median(steps):.0f} for half of them"
    )
    figure.text(right, figure.place(0, 76)[1], words, ORANGE, "end")
    figure.write(path)


def draw_bias(path: Path) -> None:
    """Draw the mean error of every channel that rounded weights make, and what is left with the biases corrected."""
    network, seen = see("demo:digits", [f"{DEMO}digit_{digit}.png" for digit in (0, 2, 3, 5, 7, 9)])
    name, source = "layer.3", "layer.2"
    weight = network.weights[network.graph.node(name).weights["weight"]]
    numbers = round_per_tensor(weight, "nearest").numbers()
    whole = mean_shift(weight, numbers, seen[source].means)
    half = see("demo:digits", [f"{DEMO}digit_{digit}.png" for digit in (0, 2, 3)])[1][source].means  # half calibrate
    left = whole - mean_shift(weight, numbers, half)
    reach = 1.1 * float(np.abs(whole).max())
    figure = Figure(f"{name} of demo:digits: mean error of its channels", (0, len(weight)), (-reach, reach))
    figure.axis({-0.01: "-0.01", 0: "0", 0.01: "0.01"}, "channels; all weights in bytes on one scale, six pictures")
    for channel in range(len(weight)):
        figure.bar(channel + 0.1, 0.4, float(whole[channel]), ORANGE)
        figure.bar(channel + 0.5, 0.4, float(left[channel]), BLUE)
    at = figure.place(0, 0.95 * reach)[1]
    figure.text(WIDTH - 20, at, f"rounded: {np.sqrt((whole**2).mean()):.4f} rms", ORANGE, "end")
    words = f"biases corrected by three of the pictures: {np.sqrt((left**2).mean()):.4f} rms"
    figure.text(WIDTH - 170, at, words, BLUE, "end")
    figure.write(path)


FIGURES = {"ranges.svg": draw_ranges, "channels.svg": draw_channels, "bias.svg": draw_bias}


def draw(folder: Path) -> Iterable[Path]:
    """Write all figures to a folder, which is made."""
    folder.mkdir(exist_ok=True)
    for name, draw_one in FIGURES.items():
        draw_one(folder / name)
        yield folder / name


def main(words: list[str]) -> int:
    """Draw, and say what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(words)
    for path in draw(FOLDER):
        print(f"{path}, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
