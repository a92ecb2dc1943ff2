"""What compiling a quantised network keeps: where maps lie, the constants, and the steps so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.arena import Arena, aligned_floats
from minimobile.execution.parts import count_parts
from minimobile.quantized.arithmetic import full_range
from minimobile.quantized.layout import Shape, as_image, lift, lifted_zero
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.packing import pack_filters, pack_panels, pack_plain_filters, pack_scales
from minimobile_kernels.amx import ROW_BYTES, ROWS, may_use_tiles
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.constants import GATHERED_BYTES, GROUP, LINE_PIXELS, SCALES, SUM_BYTES
from minimobile_kernels.quantized.estimates import addition_estimates, estimates
from minimobile_kernels.quantized.reference import Range, Scaling
from minimobile_kernels.quantized.step import BYTES_OF, KINDS, STEP

Bytes = NDArray[np.uint8] | NDArray[np.int8]

LEAST_PART, GOOD_PART = 25_000, 2_000_000  # multiply-adds: a quarter of a microsecond, and ten or twenty
LEAST_CHANNELS = 48  # for which matrix registers pay: with 32 they take as long as without, with 16 longer
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
    """Steps for the kernels, with the places of their maps in the arena. A name may be that of a tensor.

    `results` says where tensors that the caller keeps lie in the result. Operations keep their constants by `keep` and
    the methods called put, which bring them into the order of the kernels and return fields of `STEP`.
    """

    lanes = LANES
    group = GROUP

    def __init__(self, network: Network, results: Mapping[str, int], bytes_of: str, num_threads: int) -> None:
        self.network = network
        self.results = results
        self.bytes_of = bytes_of
        self.num_threads = num_threads
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
        step["parts"] = count_parts(cost, self.num_threads, LEAST_PART, GOOD_PART)
        self.steps.append(step)

    def add_look_up(self, operation: Operation, results: Bytes) -> None:
        """Add the step that looks up the result of every byte; `results` are those of `layout.every_byte`."""
        out = self.tensor(operation.output)
        cost = 4 * int(np.prod(out.shape))
        self.add_step("look_up", operation.inputs[0], out.name, cost, table=self.put_table(results))

    def tile_terms(self, channels: int, pixels: int) -> int:
        """Return how many bytes a pixel takes in matrix registers, 0 where the step does better without them."""
        terms = -(-channels // ROW_BYTES) * ROW_BYTES
        fits = channels >= LEAST_CHANNELS and pixels >= ROWS and terms * 2 * ROWS <= GATHERED_BYTES
        return terms if fits and may_use_tiles() else 0

    def keep(self, values: NDArray[Any]) -> int:
        """Keep constants for the kernels; returns where they begin."""
        return self.constants.put(values)

    def put_table(self, results: Bytes) -> int:
        """Keep the results for `layout.every_byte`, as the kernels have bytes."""
        return self.keep((results.astype(np.int64) + lift(results.dtype)).astype(np.uint8))

    def put_scales(self, by: Scaling, bias: NDArray[np.int64]) -> int:
        """Keep how the sums of every channel come to bytes; `by` may hold for all of them. Shape: bias (C)."""
        channels = len(bias)
        return self.keep(pack_scales(channels, _spread(by, channels), bias))

    def put_estimates(
        self, by: Scaling, bias: NDArray[np.int64], weights: NDArray[np.int64], to: int, bytes_of: str | None = None
    ) -> dict[str, int]:
        """Keep the same for sums of bytes times weights (C, terms), with what estimates them where that can be done.

        `to` is the zero point of what they become, `bytes_of` says by whose rule, None: the network's.
        """
        bytes_of = bytes_of or self.bytes_of
        limits = (np.clip(weights * 255, *side).sum(1) + bias for side in ((None, 0), (0, None)))
        largest = np.maximum(*map(np.abs, limits)).astype(np.float64)
        by = _spread(by, len(bias))
        scales = pack_scales(len(bias), by, bias, estimates(by, to, largest, bytes_of))
        return {"scales": self.keep(scales), "bytes_of": BYTES_OF.index(bytes_of)}

    def put_addends(
        self, bys: Sequence[Scaling], bits: int, scales: tuple[float, float, float], zeros: tuple[int, int, int]
    ) -> int:
        """Keep how two bytes and their sum are scaled; the two are shifted to the left by `bits` first.

        `scales` and `zeros` are those of the two and their sum, for what estimates it.
        """
        units = addition_estimates(scales, zeros, self.bytes_of)
        estimated = [np.repeat(units[[row, 2, 2], None], LANES, 1) for row in (0, 1, 2)]  # the sum has no factor
        pairs = zip(bys, estimated, strict=True)
        rows = [pack_scales(LANES, _spread(by, LANES), np.zeros(1, np.int64), each) for by, each in pairs]
        for row in rows[:2]:
            row[0, SCALES.index("left")] += bits
        return self.keep(np.concatenate(rows))

    def put_panels(self, values: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, int]:
        """Keep the weights (C_out, groups * GROUP); the bytes of group g lie `offsets[g]` from a pixel's first."""
        rows = []
        for panel in pack_panels(values):
            first = self.keep(offsets[panel.groups])
            rows.append((first, len(panel.groups), self.keep(panel.weights)))
        return {"panels": self.keep(np.array(rows, np.int64))}

    def put_filters(self, values: NDArray[np.int64], zero: int) -> dict[str, int]:
        """Keep depthwise weights (K_h, K_w, C), and a line of the input's zero points for what lies outside it."""
        line = {"line": self.keep(np.full(LINE_PIXELS * LANES, zero, np.uint8))}
        if values.shape[:2] == (3, 3):
            filters, visits = pack_filters(values)
            return {"filters": self.keep(filters), "visits": self.keep(visits), **line}
        return {"filters": self.keep(pack_plain_filters(values)), **line}


def _spread(by: Scaling, channels: int) -> Scaling:
    """Return one scaling for every channel."""
    return Scaling(*(np.broadcast_to(values, channels) for values in by))
