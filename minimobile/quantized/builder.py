"""What compiling a quantised network keeps: where maps lie, the constants, and the steps so far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.arena import Arena, aligned_floats
from minimobile.quantized.arithmetic import full_range
from minimobile.quantized.network import Network, Tensor
from minimobile_kernels.quantized.machine import SUM_BYTES
from minimobile_kernels.quantized.reference import Range
from minimobile_kernels.quantized.step import BYTES_OF, KINDS, STEP
from minimobile_kernels.simd import LANES

Shape = tuple[int, int, int, int]

PARTS_PER_THREAD = 2
LEAST_PART = 50_000  # multiply-adds: half a microsecond
LINE = 64  # bytes of a cache line
SUMS = "the sums of every thread"  # in the arena; no tensor has this name


class Constants:
    """What the kernels read besides maps, in one array of bytes, grown while compiling."""

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.uint8]] = []
        self._size = 0

    def put(self, values: NDArray[Any]) -> int:
        """Append values at the beginning of a cache line; returns where they begin."""
        start = self._size
        chunk = np.frombuffer(values.tobytes(), np.uint8)
        self._chunks.append(np.pad(chunk, (0, -chunk.size % LINE)))
        self._size += self._chunks[-1].size
        return start

    def array(self) -> NDArray[np.uint8]:
        """Return all of them; it begins at a cache line itself."""
        result = aligned_floats(self._size // 4).view(np.uint8)
        return np.concatenate([np.zeros(0, np.uint8), *self._chunks], out=result)


class Builder:
    """Steps for the kernels, with the places of their maps in the arena. A name may be that of a tensor."""

    def __init__(self, network: Network, bytes_of: str, num_threads: int) -> None:
        self.network = network
        self.bytes_of = bytes_of
        self.num_threads = num_threads
        self.cost = 0
        self.constants = Constants()
        self.arena = Arena()
        self.steps: list[NDArray[np.void]] = []
        self.places: dict[str, int] = {}
        self.reserve(SUMS, num_threads * SUM_BYTES)

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
            "bytes_of": BYTES_OF.index(self.bytes_of), "sums": self.places[SUMS], **fields,
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
