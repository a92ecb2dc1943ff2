"""Quantised network + input shape -> program: steps for the compiled kernels, their constants, and arena offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arena import Arena
from minimobile.quantized.arithmetic import activation_range, product_scaling
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.packing import pack_filters, pack_panels, pack_plain_filters, pack_scales
from minimobile_kernels.geometry import Window, window
from minimobile_kernels.quantized.byte_filter import LINE_PIXELS
from minimobile_kernels.quantized.integers import GROUP
from minimobile_kernels.quantized.reference import ADDED_BITS, Range, Scaling, add_scalings
from minimobile_kernels.quantized.step import KINDS, ROUNDINGS, STEP
from minimobile_kernels.simd import LANES

COMPILED = ("conv2d", "depthwise_conv2d", "fully_connected", "average_pool2d", "add", "reshape")
PARTS_PER_THREAD = 4
LEAST_PART = 400_000  # multiply-adds: about two microseconds
SLACK = 64  # bytes that a tile may read beyond a packed image


@dataclass
class Constants:
    """What the kernels read besides maps: one array per type, grown while compiling."""

    weights: list[NDArray[np.int8]] = field(default_factory=list)
    lines: list[NDArray[np.uint8]] = field(default_factory=list)
    scales: list[NDArray[np.int32]] = field(default_factory=list)
    taps: list[NDArray[np.int64]] = field(default_factory=list)

    @staticmethod
    def put(chunks: list[Any], values: NDArray[Any]) -> int:
        """Append values to one of the lists; returns the index of their first element in the whole."""
        start: int = sum(chunk.size for chunk in chunks)
        chunks.append(values.reshape(-1))
        return start

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return weights, lines, scales and taps as one array each."""
        kinds = ((self.weights, np.int8), (self.lines, np.uint8), (self.scales, np.int32), (self.taps, np.int64))
        return tuple(np.concatenate([np.zeros(0, dtype), *chunks]).astype(dtype) for chunks, dtype in kinds)


@dataclass(frozen=True)
class Program:
    """Steps and their constants for one input shape. `places` are (offset, shape) of maps in the arena by tensor."""

    steps: NDArray[np.void]
    constants: tuple[NDArray[Any], ...]
    arena_size: int
    places: Mapping[str, tuple[int, tuple[int, int, int, int]]]


def as_image(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return a tensor's shape as (N, H, W, C): one of two dimensions is a single pixel."""
    return (shape[0], 1, 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2], shape[3])


def is_compiled(operation: Operation, network: Network, rounding: str) -> bool:
    """Say whether the kernels can do an operation; what they cannot, the definitions do."""
    if operation.op not in COMPILED or (operation.op == "add" and rounding != "double"):
        return False
    shapes = [network.tensors[name].shape for name in (operation.inputs[0], operation.output)]
    if any(len(shape) not in (2, 4) for shape in shapes):
        return False
    if operation.op == "reshape":
        return as_image(shapes[0]) == as_image(shapes[1])
    if operation.op == "average_pool2d":
        return bool(operation.attributes["padding"] == "VALID")
    return operation.op != "add" or network.tensors[operation.inputs[1]].shape == shapes[0]


def compile_program(
    network: Network, operations: Sequence[Operation], kept: Sequence[str], rounding: str, num_threads: int
) -> Program:
    """Turn a row of operations that `is_compiled` into a program; maps of the tensors `kept` survive to its end."""
    return _Compiler(network, operations, kept, rounding, num_threads).compile()


class _Compiler:
    def __init__(
        self, network: Network, operations: Sequence[Operation], kept: Sequence[str], rounding: str, num_threads: int
    ) -> None:
        self.network = network
        self.operations = operations
        self.kept = kept
        self.rounding = ROUNDINGS.index(rounding)
        self.num_threads = num_threads
        self.constants = Constants()
        self.arena = Arena()
        self.steps: list[NDArray[np.void]] = []
        self.images: set[str] = set()
        self.places: dict[str, tuple[int, tuple[int, int, int, int]]] = {}

    def compile(self) -> Program:
        bases = self._bases()
        last_use: dict[str, int] = {}
        for index, operation in enumerate(self.operations):
            last_use.update((bases.get(name, name), index) for name in operation.inputs)
        last_use.update((bases.get(name, name), len(self.operations)) for name in self.kept)
        for source in self._sources():
            self._place(source)
        for index, operation in enumerate(self.operations):
            if operation.output in bases:
                self.places[operation.output] = (self.places[bases[operation.output]][0], self._shape(operation.output))
                continue
            self._place(operation.output)
            getattr(self, f"_add_{operation.op}")(operation)
            for name in self.arena.names():
                if last_use.get(name, index) <= index:
                    self.arena.release(name)
        steps = np.concatenate([np.zeros(0, STEP), *self.steps])
        return Program(steps, self.constants.arrays(), self.arena.size + SLACK, self.places)

    def _bases(self) -> dict[str, str]:
        """Return the maps that are the bytes of another map under another name, and that map."""
        bases: dict[str, str] = {}
        for operation in self.operations:
            if operation.op == "reshape":
                source = operation.inputs[0]
                bases[operation.output] = bases.get(source, source)
        return bases

    def _sources(self) -> list[str]:
        """Return the maps that come from elsewhere, but for the caller's image where it is packed as it is."""
        made = {operation.output for operation in self.operations}
        read: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in operation.inputs:
                if name not in made and self.network.tensors[name].values is None:
                    read.setdefault(name, []).append(operation)
        self.images = {
            name for name, users in read.items()
            if name in self.network.inputs and all(self._is_packing(user) for user in users)
        }  # fmt: skip
        return [name for name in read if name not in self.images]

    def _is_packing(self, operation: Operation) -> bool:
        """Say whether an operation is a convolution whose windows are more than single pixels, side by side."""
        if operation.op != "conv2d":
            return False
        _, *kernel_size, _ = self.network.tensors[operation.inputs[1]].shape
        same_size = self._shape(operation.inputs[0])[1:3] == self._shape(operation.output)[1:3]
        return (kernel_size, operation.attributes["stride"], same_size) != ([1, 1], 1, True)

    def _shape(self, name: str) -> tuple[int, int, int, int]:
        return as_image(self.network.tensors[name].shape)

    def _place(self, name: str) -> None:
        n, height, width, channels = self._shape(name)
        self.arena.place(name, -(-channels // LANES) * n * height * width * LANES)
        self.places[name] = (self.arena.offsets[name], self._shape(name))

    def _plane(self, name: str) -> int:
        n, height, width, _ = self._shape(name)
        return n * height * width * LANES

    def _add_step(self, kind: str, source: str, target: str, cost: int, to: Range | None, **fields: Any) -> None:
        n, height, width, channels = self._shape(source)
        _, out_height, out_width, out_channels = self._shape(target)
        x, y = self.network.tensors[source], self.network.tensors[target]
        shift = 128 if y.dtype == np.int8 else 0
        to = to or Range(y.zero, *_limits(y))
        values = {
            "kind": KINDS.index(kind), "batch": n, "height": height, "width": width, "channels": channels,
            "out_height": out_height, "out_width": out_width, "out_channels": out_channels, "stride": 1, "dilation": 1,
            "x": self.places.get(source, (0,))[0], "out": self.places.get(target, (0,))[0],
            "x_plane": self._plane(source), "out_plane": self._plane(target), "x_zero": _unsigned_zero(x),
            "out_zero": to.zero + shift,
            "low": to.low + shift, "high": to.high + shift, "is_signed": int(x.dtype == np.int8),
            "rounding": self.rounding, **fields,
        }  # fmt: skip
        step = np.zeros(1, STEP)
        for name, value in values.items():
            step[name] = value
        step["is_simple"] &= step["low"] == step["out_zero"]
        step["parts"] = max(1, min(PARTS_PER_THREAD * self.num_threads, cost // LEAST_PART))
        self.steps.append(step)

    def _add_conv2d(self, operation: Operation) -> None:
        x, weight, bias, out = self._operands(operation)
        attributes = operation.attributes
        _, kernel_height, kernel_width, channels = weight.shape
        slide = _window(operation, x.shape, (kernel_height, kernel_width))
        values = _values(weight).astype(np.int64) - weight.zero_points.reshape(-1, *[1] * 3)
        if not self._is_packing(operation):
            self._add_product(operation, values.reshape(len(values), channels), bias)
            return
        # Rows with all channels together: a row of the window is one stretch of bytes, or, dilated, several.
        stretch = kernel_width * channels if slide.dilation == 1 else channels
        per_row = 1 if slide.dilation == 1 else kernel_width
        padded = -(-stretch // GROUP) * GROUP
        rows = np.zeros((len(values), kernel_height * per_row, padded), np.int64)
        rows[:, :, :stretch] = values.reshape(len(values), kernel_height * per_row, stretch)
        height = (slide.out_height - 1) * slide.stride + (kernel_height - 1) * slide.dilation + 1
        width = (slide.out_width - 1) * slide.stride + (kernel_width - 1) * slide.dilation + 1
        height, width = max(height, slide.pad_top + x.shape[1]), max(width, slide.pad_left + x.shape[2])
        packed = f"{operation.output} packed"
        self.arena.place(packed, -(-x.shape[0] * height * width * channels // 64) * 64 + SLACK)
        place = self.arena.offsets[packed]
        is_image = x.name in self.images
        self._add_step(
            "pack", x.name, x.name, x.shape[0] * height * width * channels, None, out=place, out_height=height,
            out_width=width, pad_top=slide.pad_top, pad_left=slide.pad_left, is_from_image=int(is_image),
        )  # fmt: skip
        line = width * channels
        taps = [
            (ky * line + kx * channels) * slide.dilation + byte
            for ky in range(kernel_height)
            for kx in range(per_row)
            for byte in range(0, padded, GROUP)
        ]
        self._add_step(
            "conv2d", x.name, out.name, values.size * slide.out_height * slide.out_width,
            activation_range(attributes["activation"], out), x=place, x_image=height * line, x_row=line,
            x_pixel=slide.stride * channels, stride=slide.stride,
            **self._put_panels(rows.reshape(len(values), -1), np.array(taps)),
            **self._put_scales(x, weight, out, bias, values.reshape(len(values), -1).sum(1)),
        )  # fmt: skip

    def _add_fully_connected(self, operation: Operation) -> None:
        _, weight, bias, _ = self._operands(operation)
        self._add_product(operation, _values(weight).astype(np.int64) - weight.zero_points.reshape(-1, 1), bias)

    def _add_product(self, operation: Operation, values: NDArray[np.int64], bias: NDArray[np.int64]) -> None:
        """Add a product of a map's pixels and a matrix (C_out, C_in): all pixels are one row."""
        x, weight, _, out = self._operands(operation)
        n, height, width, channels = self._shape(x.name)
        padded = np.zeros((len(values), -(-channels // GROUP) * GROUP), np.int64)
        padded[:, :channels] = values
        first = np.arange(0, channels, GROUP)
        self._add_step(
            "conv2d", x.name, out.name, values.size * n * height * width,
            activation_range(operation.attributes["activation"], out), batch=1, out_height=1,
            out_width=n * height * width, x_pixel=LANES,
            **self._put_panels(padded, first // LANES * self._plane(x.name) + first % LANES),
            **self._put_scales(x, weight, out, bias, values.sum(1)),
        )  # fmt: skip

    def _add_depthwise_conv2d(self, operation: Operation) -> None:
        x, weight, bias, out = self._operands(operation)
        _, kernel_height, kernel_width, _ = weight.shape
        slide = _window(operation, x.shape, (kernel_height, kernel_width))
        values = _values(weight)[0].astype(np.int64) - weight.zero_points.reshape(1, 1, -1)
        if (kernel_height, kernel_width) == (3, 3):
            filters, visits = pack_filters(values)
            places = {
                "filters": Constants.put(self.constants.weights, filters),
                "visits": Constants.put(self.constants.taps, visits),
            }
        else:
            places = {"filters": Constants.put(self.constants.scales, pack_plain_filters(values))}
        line = np.full(LINE_PIXELS * LANES, _unsigned_zero(x), np.uint8)
        self._add_step(
            "depthwise_conv2d", x.name, out.name, 4 * values.size * slide.out_height * slide.out_width,
            activation_range(operation.attributes["activation"], out), kernel_height=kernel_height,
            kernel_width=kernel_width, stride=slide.stride, dilation=slide.dilation, pad_top=slide.pad_top,
            pad_left=slide.pad_left, line=Constants.put(self.constants.lines, line), **places,
            **self._put_scales(x, weight, out, bias, values.sum((0, 1))),
        )  # fmt: skip

    def _add_average_pool2d(self, operation: Operation) -> None:
        x, out = (self.network.tensors[name] for name in (operation.inputs[0], operation.output))
        kernel_height, kernel_width = operation.attributes["kernel_size"]
        self._add_step(
            "average_pool2d", x.name, out.name, int(np.prod(out.shape)) * kernel_height * kernel_width * 4,
            activation_range(operation.attributes["activation"], out), kernel_height=kernel_height,
            kernel_width=kernel_width, stride=operation.attributes["stride"],
        )  # fmt: skip

    def _add_add(self, operation: Operation) -> None:
        x, y, out = (self.network.tensors[name] for name in (*operation.inputs, operation.output))
        by_x, by_y, by_sum = add_scalings((float(x.scale), float(y.scale), float(out.scale)))
        rows = []
        for by, shift in ((by_x, ADDED_BITS), (by_y, ADDED_BITS), (by_sum, 0)):
            table = pack_scales(LANES, Scaling(*(np.repeat(values, LANES) for values in by)), np.zeros(1, np.int64))
            table[0, 2] += shift
            rows.append(table)
        self._add_step(
            "add", x.name, out.name, int(np.prod(out.shape)) * 16,
            activation_range(operation.attributes["activation"], out), y=self.places[y.name][0],
            y_zero=_unsigned_zero(y), scales=Constants.put(self.constants.scales, np.concatenate(rows)),
        )  # fmt: skip

    def _operands(self, operation: Operation) -> tuple[Tensor, Tensor, NDArray[np.int64], Tensor]:
        """Return x, weight, the values of the bias, and the output of a convolution."""
        x, weight = (self.network.tensors[name] for name in operation.inputs[:2])
        out = self.network.tensors[operation.output]
        if len(operation.inputs) > 2:
            return x, weight, _values(self.network.tensors[operation.inputs[2]]).astype(np.int64), out
        return x, weight, np.zeros(as_image(out.shape)[3], np.int64), out

    def _put_panels(self, values: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, int]:
        """Keep the weights (C_out, groups * GROUP); the bytes of group g lie `offsets[g]` from a pixel's first."""
        rows = []
        for panel in pack_panels(values):
            first = Constants.put(self.constants.taps, offsets[panel.groups])
            rows.append((first, len(panel.groups), Constants.put(self.constants.weights, panel.weights)))
        return {"panels": Constants.put(self.constants.taps, np.array(rows, np.int64))}

    def _put_scales(
        self, x: Tensor, weight: Tensor, out: Tensor, bias: NDArray[np.int64], totals: NDArray[np.int64]
    ) -> dict[str, int]:
        """Keep how sums come to bytes. The bias takes in what the zero point of x adds, by the sums of the weights."""
        channels = len(totals)
        by = Scaling(*(np.broadcast_to(values, channels) for values in product_scaling(x, weight, out)))
        table = pack_scales(channels, by, bias - _unsigned_zero(x) * totals)
        is_simple = self.rounding == ROUNDINGS.index("double") and bool((by.shift < 0).all())
        return {"scales": Constants.put(self.constants.scales, table), "is_simple": int(is_simple)}


def _window(operation: Operation, shape: Sequence[int], kernel_size: tuple[int, int]) -> Window:
    attributes = operation.attributes
    return window(shape[1], shape[2], kernel_size, attributes["stride"], attributes["dilation"], attributes["padding"])


def _values(tensor: Tensor) -> NDArray[Any]:
    assert tensor.values is not None, tensor.name
    return tensor.values


def _unsigned_zero(tensor: Tensor) -> int:
    return tensor.zero + (128 if tensor.dtype == np.int8 else 0)


def _limits(tensor: Tensor) -> tuple[int, int]:
    limits = np.iinfo(tensor.dtype)
    return int(limits.min), int(limits.max)
