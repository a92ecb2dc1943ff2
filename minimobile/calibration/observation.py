"""What the values of a map were over many pictures: limits, means, and how often each value came up.

Everything is the same on every machine: limits and counts are exact, sums go picture by picture, pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minimobile.calibration.folding import FoldedNetwork
from minimobile.errors import FormatError
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import RunOptions
from minimobile.networks.graph import INPUT
from minimobile_kernels.entries import count_values
from minimobile_kernels.reference_statistics import BINS

DECAY = 0.99  # of moving averages, per picture; TensorFlow's training takes 0.999 per step of a batch
_LEAST_EXPONENT = -60


@dataclass
class Observed:
    """The values of one map so far. Shapes: `minima`, `maxima`, `sums` (C), `counts` (BINS).

    `counts` are of bins of `width`, a power of two that grows with the values, around zero: neighbouring bins are then
    put together, so that the counts do not depend on the order of the pictures. `average` are the moving averages of
    each picture's least and largest value.
    """

    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    width: float
    average: tuple[float, float]
    pixels: int = 0

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean of every channel (C)."""
        return self.sums / self.pixels

    @property
    def minimum(self) -> float:
        """The least value."""
        return float(self.minima.min())

    @property
    def maximum(self) -> float:
        """The largest value."""
        return float(self.maxima.max())

    def values(self) -> NDArray[np.float64]:
        """Return the value that stands for each bin: its end that is nearer to zero, where zeros and caps lie."""
        places = np.arange(BINS) - BINS // 2
        values: NDArray[np.float64] = np.multiply(places + (places < 0), self.width, dtype=np.float64)
        return values

    def add(self, x: NDArray[np.float32]) -> None:
        """Add the values of one more picture. Shape: x (pixels, C)."""
        minima, maxima = x.min(0), x.max(0)
        self.minima, self.maxima = np.minimum(self.minima, minima), np.maximum(self.maxima, maxima)
        low, high = float(minima.min()), float(maxima.max())
        if self.pixels:
            last_low, last_high = self.average
            self.average = last_low + (1 - DECAY) * (low - last_low), last_high + (1 - DECAY) * (high - last_high)
        else:
            self.average = low, high
        while self.width * (BINS // 2) < max(-low, high):
            self._widen()
        count_values(x, self.sums, self.counts, self.width)
        self.pixels += len(x)

    def _widen(self) -> None:
        """Put neighbouring bins together, two and two, keeping zero between bins."""
        quarter = BINS // 4
        halved = self.counts.reshape(-1, 2).sum(1)  # integers: exact in any order
        self.counts = np.concatenate([np.zeros(quarter, np.int64), halved, np.zeros(quarter, np.int64)])
        self.width *= 2


def start(x: NDArray[np.float32]) -> Observed:
    """Return the observation of nothing yet, with bins for the values of a first picture. Shape: x (pixels, C)."""
    channels = x.shape[1]
    largest = float(np.abs(x).max())
    exponent = math.frexp(largest)[1] if largest > 0 else 0
    width = 2.0 ** max(exponent - int(math.log2(BINS // 2)), _LEAST_EXPONENT)
    limits = np.full(channels, np.inf, np.float32)
    return Observed(limits, -limits, np.zeros(channels), np.zeros(BINS, np.int64), width, (0.0, 0.0))


def observe(
    network: FoldedNetwork, pictures: Iterable[NDArray[np.float32]], num_threads: int | None, where: str
) -> dict[str, Observed]:
    """Run pictures through a network and return what was seen of every node, and of the pixel values.

    One picture is held at a time. Raises FormatError for a layer with values that are no finite numbers.

    Shapes: each picture (1, C, H, W).
    """
    names = tuple(node.name for node in network.graph.nodes)
    runner = CompiledRunner(network.graph, as_floats(network.weights), RunOptions(num_threads=num_threads))
    found: dict[str, Observed] = {}
    for picture in pictures:
        x = np.ascontiguousarray(picture.transpose(0, 2, 3, 1))
        maps = {INPUT: x, **runner.run(x, names, "channels_last")}
        for name, y in maps.items():
            rows = np.ascontiguousarray(y).reshape(-1, y.shape[-1])
            if not np.isfinite(rows).all():
                raise FormatError(f"{where}: {name}: expected finite values for every picture, found NaN or infinity")
            found.setdefault(name, start(rows)).add(rows)
    return found


def as_floats(weights: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights as the engine takes them."""
    return {name: values.astype(np.float32) for name, values in weights.items()}
