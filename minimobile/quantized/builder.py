"""What compiling a quantised network keeps: where maps lie, the constants, and the steps so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.arena import Arena, aligned_floats
from minimobile.quantized.arithmetic import full_range
from minimobile.quantized.network import Network, Tensor
from minimobile_kernels.quantized.reference import Range
from minimobile_kernels.quantized.step import KINDS, ROUNDINGS, STEP
from minimobile_kernels.simd import LANES

Shape = tuple[int, int, int, int]

PARTS_PER_THREAD = 2
LEAST_PART = 50_000  # multiply-adds: half a microsecond
LINE = 64  # bytes of a cache line


@dataclass
class Constants:
    """What the kernels read besides maps: one array per type, grown while compiling."""

    weights: list[NDArray[np.int8]] = field(default_factory=list)
    tables: list[NDArray[np.uint8]] = field(default_factory=list)
    scales: list[NDArray[np.int32]] = field(default_factory=list)
    taps: list[NDArray[np.int64]] = field(default_factory=list)

    @staticmethod
    def put(chunks: list[Any], values: NDArray[Any]) -> int:
        """Append values to one of the lists; returns the index of their first element in the whole."""
        start: int = sum(chunk.size for chunk in chunks)
        padding = -values.size % (LINE // values.itemsize)
        chunks.append(np.pad(values.reshape(-1), (0, padding)))
        return start

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return weights, tables, scales and taps as one array each, every chunk at the beginning of a cache line."""
        kinds = ((self.weights, np.int8), (self.tables, np.uint8), (self.scales, np.int32), (self.taps, np.int64))
        return tuple(_align(np.concatenate([np.zeros(0, dtype), *chunks]).astype(dtype)) for chunks, dtype in kinds)


class Builder:
    """Steps for the kernels, with the places of their maps in the arena. A name may be that of a tensor."""

    def __init__(self, network: Network, rounding: str, num_threads: int) -> None:
        self.network = network
        self.rounding = rounding
        self.num_threads = num_threads
        self.cost = 0
        self.constants = Constants()
        self.arena = Arena()
        self.steps: list[NDArray[np.void]] = []
        self.places: dict[str, int] = {}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the network."""
        return self.network.tensors[name]

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape as (N, H, W, C): one of two dimensions is a row of single pixels."""
        return as_image(self.tensor(name).shape)

    def plane(self, name: str) -> int:
        """Return the bytes of one plane of a map."""
        n, height, width, _ = self.shape(name)
        return n * height * width * LANES

    def place(self, name: str) -> None:
        """Reserve the bytes of a map."""
        self.reserve(name, -(-self.shape(name)[3] // LANES) * self.plane(name))

    def reserve(self, name: str, size: int) -> None:
        """Reserve bytes at the beginning of a cache line."""
        self.arena.place(name, -(-size // LINE) * LINE)
        self.places[name] = self.arena.offsets[name]

    def add_step(self, kind: str, source: str, target: str, cost: int, to: Range | None = None, **fields: int) -> None:
        """Add a step from one map to another; `to` is what the bytes are clamped to, None: all of them.

        `cost` is about as many multiply-adds as the step is worth; `fields` are further ones of `STEP`, or other values
        for those that follow from the maps.
        """
        n, height, width, channels = self.shape(source)
        _, out_height, out_width, out_channels = self.shape(target)
        x, y = self.tensor(source), self.tensor(target)
        to = to or full_range(y)
        shift = lift(y.dtype)
        step = np.zeros(1, STEP)
        values = {
            "kind": KINDS.index(kind), "batch": n, "height": height, "width": width, "channels": channels,
            "out_height": out_height, "out_width": out_width, "out_channels": out_channels, "stride": 1, "dilation": 1,
            "x": self.places.get(source, 0), "out": self.places.get(target, 0), "x_plane": self.plane(source),
            "out_plane": self.plane(target), "x_zero": lifted_zero(x), "out_zero": to.zero + shift,
            "low": to.low + shift, "high": to.high + shift, "is_signed": int(x.dtype == np.int8),
            "rounding": ROUNDINGS.index(self.rounding), **fields,
        }  # fmt: skip
        for name, value in values.items():
            step[name] = value
        step["is_simple"] &= step["low"] == step["out_zero"]
        self.cost += cost
        parts = min(PARTS_PER_THREAD * self.num_threads, cost // LEAST_PART)
        step["parts"] = max(1, parts // self.num_threads * self.num_threads)  # as many for each
        self.steps.append(step)


def as_image(shape: tuple[int, ...]) -> Shape:
    """Return a shape of two or four dimensions as (N, H, W, C)."""
    return (shape[0], 1, 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2], shape[3])


def lift(dtype: np.dtype[Any]) -> int:
    """Return what the kernels add to bytes of a type, modulo 256: they know unsigned ones alone."""
    return 128 if dtype == np.int8 else 0


def lifted_zero(tensor: Tensor) -> int:
    """Return the zero point of a tensor as the kernels have it; 0 where it has none."""
    return tensor.zero + lift(tensor.dtype) if len(tensor.zero_points) else 0


def values_of(tensor: Tensor) -> NDArray[Any]:
    """Return the values of a constant."""
    assert tensor.values is not None, tensor.name
    return tensor.values


def _align(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of whole cache lines that begins at one."""
    result = aligned_floats(values.nbytes // 4).view(values.dtype)
    result[:] = values
    return result
