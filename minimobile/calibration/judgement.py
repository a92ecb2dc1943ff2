"""How much of every layer's signal is left in integers, beside the floats that they were made of."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.calibration.folding import FoldedNetwork
from minimobile.calibration.observation import as_floats
from minimobile.calibration.sums import sum_in_order
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import RunOptions
from minimobile.networks.graph import INPUT
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Tensor
from minimobile_kernels.quantized.reference_maps import Affine, quantize

PICTURES = 16
"""How many are compared: more do not change the picture."""


@dataclass
class LayerJudgement:
    """What became of one layer's values; `noise` and `signal` are sums of squares, the others are counts and sums."""

    signal: float = 0.0
    noise: float = 0.0
    clipped: int = 0
    values: int = 0
    difference: float = 0.0

    @property
    def signal_to_noise(self) -> float:
        """Signal over noise in decibels; infinite where the integers stand for the very floats."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf

    @property
    def saturated(self) -> float:
        """The share of values that the bytes cannot reach."""
        return self.clipped / self.values if self.values else 0.0

    @property
    def shift(self) -> float:
        """The mean of integers minus floats, in parts of the rms of the floats."""
        rms = math.sqrt(self.signal / self.values) if self.values else 0.0
        return self.difference / self.values / rms if rms > 0 else 0.0

    def add(self, exact: NDArray[np.float64], stored: NDArray[np.float64], tensor: Tensor) -> None:
        """Add the values of one picture, both of one shape; `tensor` has the grid of the bytes."""
        error = (stored - exact).reshape(-1)
        limits = np.iinfo(tensor.dtype)
        low, high = (float(tensor.scale) * (limit + sign / 2 - tensor.zero) for limit, sign in
                     ((int(limits.min), -1), (int(limits.max), 1)))  # fmt: skip
        self.signal += float(sum_in_order(exact.reshape(-1) ** 2))
        self.noise += float(sum_in_order(error**2))
        self.difference += float(sum_in_order(error))
        self.clipped += int(np.count_nonzero((exact < low) | (exact > high)))
        self.values += exact.size

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def compare_layers(
    folded: FoldedNetwork, network: Network, pictures: Iterable[NDArray[np.float32]], num_threads: int | None
) -> dict[str, LayerJudgement]:
    """Run the first pictures (1, C, H, W) in floats and in integers, and return what became of each node's values."""
    names = tuple(node.name for node in folded.graph.nodes if node.name in network.tensors)
    floats = CompiledRunner(folded.graph, as_floats(folded.weights), RunOptions(num_threads=num_threads))
    integers = QuantizedEngine(network, RunOptions(num_threads=num_threads))
    source = network.tensors[INPUT]
    found = {name: LayerJudgement() for name in names}
    for picture in itertools.islice(pictures, PICTURES):
        x = np.ascontiguousarray(picture.transpose(0, 2, 3, 1))
        exact = floats.run(x, names, "channels_last")
        stored = integers.run(quantize(x, Affine(source.scale, source.zero), source.dtype), names)
        for name in names:
            tensor = network.tensors[name]
            numbers = float(tensor.scale) * (stored[name].astype(np.float64) - tensor.zero)
            found[name].add(exact[name].astype(np.float64), numbers.reshape(exact[name].shape), tensor)
    return found
