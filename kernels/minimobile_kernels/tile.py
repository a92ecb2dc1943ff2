"""The register tile: a block of pixels times a panel of output channels, whose sums never leave the vector registers.

This is where a network spends its time: pointwise convolutions, the stem and the classifier are all made of it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.reference import BLOCK

PANEL_VECTORS = 2
LINE = 16  # floats of a cache line
PANEL = PANEL_VECTORS * simd.LANES
TILE_PIXELS = (14, 7, 1) if simd.REGISTERS == 32 else (6, 3, 1)


def make_tile(pixels: int, vectors: int, has_taps: bool) -> Any:
    """Return an intrinsic that computes `pixels` x (`vectors` * LANES) outputs of a matrix product.

    tile(x, x_start, x_step, taps, panel, panel_start, terms, first, block, y, y_start, out, out_start, out_plane, low,
    high)

    for pixel p and channel o: clamp(bias[o] + y[p,o] + sum over k of x[p,k] * weight[k,o]). One call adds one block of
    `block` terms, from `first` on, as the contract cuts the sum: the first block writes its sums to `out`, the next
    ones add theirs to what rests there, and the last one, which may be short, adds bias and y and clamps. All arrays
    are one-dimensional. Where the parts lie:

    - x[p,k] at x_start + p*x_step + taps[k] with `has_taps`; without, x is a map in planes of LANES channels, pixels
      side by side, and x_step is the distance of its planes;
    - weight and bias in `panel`: [terms][channels of this tile], then the bias;
    - out[p,o] at out_start + p*LANES + (o // LANES)*out_plane + o % LANES, and y likewise; y_start < 0 means none.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing_context, x, x_start, x_step, taps, panel, panel_start, terms, first, block,
        y, y_start, out, out_start, out_plane, low, high,
    ):  # fmt: skip
        index = types.int64
        signature = types.void(
            x, index, index, taps, panel, index, index, index, index, y, index,
            out, index, index, types.float32, types.float32,
        )  # fmt: skip

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            names = ("x", "x_start", "x_step", "taps", "panel", "panel_start", "terms", "first", "block",
                     "y", "y_start", "out", "out_start", "out_plane", "low", "high")  # fmt: skip
            given = dict(zip(names, arguments, strict=True))
            array_types = dict(zip(names, signature.args, strict=True))

            def address(name: str, offset: Any) -> Any:
                return simd.element_pointer(builder, context, array_types[name], given[name], offset)

            _Tile(builder, given, address, pixels, vectors, has_taps).emit()
            return context.get_dummy_value()

        return signature, emit

    return tile


class _Tile:
    """Emits one tile. Every method writes instructions; none of them computes."""

    def __init__(self, builder: Any, given: dict[str, Any], address: Any, pixels: int, vectors: int, has_taps: bool):
        self.builder = builder
        self.given = given
        self.pixels = pixels
        self.vectors = vectors
        self.has_taps = has_taps
        self.cells = [(pixel, vector) for pixel in range(pixels) for vector in range(vectors)]
        self.sums = {cell: cgutils.alloca_once(builder, simd.VECTOR) for cell in self.cells}
        self.x = address("x", given["x_start"])
        self.weights = address("panel", given["panel_start"])
        self.taps = address("taps", self.constant(0))
        self.out = address("out", given["out_start"])
        self.y = address("y", given["y_start"])

    def constant(self, value: int) -> Any:
        return ir.Constant(simd.INDEX, value)

    def at(self, pointer: Any, *offsets: Any) -> Any:
        """Emit pointer + the sum of the offsets, each a number or an emitted value."""
        for offset in offsets:
            value = self.constant(offset) if isinstance(offset, int) else offset
            pointer = self.builder.gep(pointer, [value], inbounds=True)
        return pointer

    def scaled(self, value: Any, factor: int) -> Any:
        return self.builder.mul(value, self.constant(factor))

    def place(self, pointer: Any, pixel: int, vector: int) -> Any:
        """Emit the address of one vector of `out` or `y`."""
        return self.at(pointer, self.scaled(self.given["out_plane"], vector), pixel * simd.LANES)

    def emit(self) -> None:
        builder, first, terms = self.builder, self.given["first"], self.given["terms"]
        after = builder.add(first, self.given["block"])
        is_last = builder.icmp_signed(">=", after, terms)
        self.sum_block(first, builder.select(is_last, terms, after))
        with builder.if_then(builder.icmp_signed(">", first, self.constant(0))):
            self.add_running_sums()
        with builder.if_else(is_last) as (then, otherwise):
            with then:
                self.finish()
            with otherwise:
                for cell, slot in self.sums.items():
                    simd.store_vector(builder, builder.load(slot), self.place(self.out, *cell))

    def sum_block(self, first: Any, last: Any) -> None:
        builder = self.builder
        for cell in self.cells:
            builder.store(ir.Constant(simd.VECTOR, [0.0] * simd.LANES), self.sums[cell])
        if self.has_taps:
            with cgutils.for_range_slice(builder, first, last, self.constant(1)) as (k, _):
                self.add_term(k, self.at(self.x, builder.load(self.at(self.taps, k))), self.given["x_step"])
            return
        lanes = self.constant(simd.LANES)
        with cgutils.for_range_slice(builder, first, last, lanes) as (channel, _):
            plane = self.at(self.x, builder.mul(builder.sdiv(channel, lanes), self.given["x_step"]))
            left = builder.sub(last, channel)
            count = builder.select(builder.icmp_signed("<", left, lanes), left, lanes)
            with cgutils.for_range(builder, count) as loop:
                self.add_term(builder.add(channel, loop.index), self.at(plane, loop.index), simd.LANES)

    def add_term(self, k: Any, first_pixel: Any, step: Any) -> None:
        """Emit the fused multiply-adds of one term: its weights for the panel times its value at every pixel."""
        builder = self.builder
        row = self.at(self.weights, self.scaled(k, self.vectors * simd.LANES))
        w = [simd.load_vector(builder, self.at(row, vector * simd.LANES)) for vector in range(self.vectors)]
        ahead = self.at(row, BLOCK * self.vectors * simd.LANES)  # the same term of the next block, or the next panel
        for line in range(0, self.vectors * simd.LANES, LINE):
            simd.prefetch(builder, self.at(ahead, line))
        for pixel in range(self.pixels):
            distance = pixel * step if isinstance(step, int) else self.scaled(step, pixel)
            x = simd.splat(builder, builder.load(self.at(first_pixel, distance)))
            for vector in range(self.vectors):
                slot = self.sums[pixel, vector]
                builder.store(simd.fused_multiply_add(builder, x, w[vector], builder.load(slot)), slot)

    def add_running_sums(self) -> None:
        builder = self.builder
        for cell, slot in self.sums.items():
            before = simd.load_vector(builder, self.place(self.out, *cell))
            builder.store(builder.fadd(before, builder.load(slot)), slot)

    def finish(self) -> None:
        """Emit bias, residual, clamp and the stores."""
        builder, given = self.builder, self.given
        bias_row = self.at(self.weights, self.scaled(given["terms"], self.vectors * simd.LANES))
        for (_, vector), slot in self.sums.items():
            bias = simd.load_vector(builder, self.at(bias_row, vector * simd.LANES))
            builder.store(builder.fadd(builder.load(slot), bias), slot)
        with builder.if_then(builder.icmp_signed(">=", given["y_start"], self.constant(0))):
            for cell, slot in self.sums.items():
                other = simd.load_vector(builder, self.place(self.y, *cell))
                builder.store(builder.fadd(builder.load(slot), other), slot)
        low, high = simd.splat(builder, given["low"]), simd.splat(builder, given["high"])
        for cell, slot in self.sums.items():
            result = simd.clamp_vector(builder, builder.load(slot), low, high)
            simd.store_vector(builder, result, self.place(self.out, *cell))
