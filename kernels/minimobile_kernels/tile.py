"""The register tile: some pixels times a panel of output channels, whose sums of a block of terms stay in registers.

This is where a network spends its time: pointwise convolutions, the stem and the classifier are all made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES, REGISTERS
from minimobile_kernels.step import PANEL_VECTORS, Arrays, Map

PANEL = PANEL_VECTORS * LANES
ASKED = PANEL // 4  # 7 x 7 pixels are four tiles of the widest vectors
TILE_PIXELS = (14, 7, 1) if REGISTERS == 32 else (6, 3, 1)


class Terms(NamedTuple):
    """The terms of a panel's sums: where their weights begin, how many they are, and the block that is due."""

    weight: int
    number: int
    first: int
    block: int
    ahead: int  # of a map: where weights begin that are asked for meanwhile, `ASKED` floats a term


class TapWindows(NamedTuple):
    """Neighbouring windows of an image, and which of their terms lie inside it: runs of neighbouring ones.

    Outside the image may begin a window, but no term of a run may lie there.
    """

    start: int  # where the first window begins, or would if the image went on
    step: int  # the distance of the next one
    taps: int  # where the offsets of all terms begin
    first: int  # term of the first run
    length: int  # of each run
    runs: int
    distance: int  # from one run's first term to that of the next


class Finish(NamedTuple):
    """What becomes of a sum: the limits of the clamp, and how far from the result lies what is added (0: nothing)."""

    low: float
    high: float
    residual: int


@compiled
def finish_of(step: Any) -> Finish:
    """Return what becomes of a step's sums."""
    return Finish(step.low, step.high, step.y - step.out if step.y >= 0 else 0)


def make_tile(shapes: Sequence[tuple[int, int, int | None]]) -> Any:
    """Return an intrinsic that computes a tile of a matrix product, in any of the shapes (pixels, vectors, step).

    tile(source, arrays, pixels, vectors, terms, x, out, finish)

    for pixel p and channel o: clamp(factor[o] * (sum over k of x[p,k] * weight[k,o]) + bias[o] + y[p,o]). One call adds
    one block of `terms.block` terms, from `terms.first` on, as the contract cuts the sum: the first block writes its
    sums to `out`, the next ones add theirs to what rests there, and the last one, which may be short, takes factor,
    bias and y and clamps. `step` is the distance of the source's neighbouring pixels, None any: one that is known needs
    no register. The last of the shapes is taken where no other fits. Where the parts lie:

    - x[p,k] in `source`: of `TapWindows`, at x.start + p*x.step + taps[x.taps + k], and terms that are in no run are
      left out; or of the pixels of a `Map`;
    - in the weights: weight [terms][vectors * LANES], then factor and bias;
    - out[p,o] in the `Map` out of the arena, and y[p,o] `finish.residual` further.
    """

    @intrinsic
    def tile(typing_context, source, arrays, pixels, vectors, terms, x, out, finish):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pairs = zip(signature.args, arguments, strict=True)
            source, arrays, *size, terms, x, out, finish = (simd.unpack(context, builder, *pair) for pair in pairs)

            step = x.step if isinstance(x, TapWindows) else simd.INDEX(LANES)

            def emit_shape(shape: tuple[int, int, int | None]) -> None:
                *size, known_step = shape
                _Tile(builder, size, source, arrays, terms, out).emit(
                    x, step if known_step is None else known_step, finish
                )

            simd.emit_choice(builder, (*size, step), shapes, emit_shape)
            return context.get_dummy_value()

        return types.void(source, arrays, types.int64, types.int64, terms, x, out, finish), emit

    return tile


class _Tile:
    """Emits one tile. Every method writes instructions; none of them computes."""

    def __init__(self, builder: Any, size: Sequence[int], source: Any, arrays: Arrays, terms: Terms, out: Map):
        self.builder = builder
        self.pixels, self.vectors = size
        self.cells = [(pixel, vector) for pixel in range(self.pixels) for vector in range(self.vectors)]
        self.sums = {cell: cgutils.alloca_once(builder, simd.VECTOR) for cell in self.cells}
        self.source = source
        self.terms = terms
        self.weights = self.at(arrays.weights, terms.weight)
        self.ahead = self.at(arrays.weights, terms.ahead)
        self.taps = arrays.taps
        self.out = self.at(arrays.arena, out.start)
        self.out_plane = out.plane

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

    def place(self, pixel: int, vector: int) -> Any:
        """Emit the address of one vector of the result."""
        return self.at(self.out, self.scaled(self.out_plane, vector), pixel * LANES)

    def emit(self, x: Map | TapWindows, step: Any, finish: Finish) -> None:
        """Emit the whole tile."""
        builder, first, count = self.builder, self.terms.first, self.terms.number
        after = builder.add(first, self.terms.block)
        is_last = builder.icmp_signed(">=", after, count)
        for slot in self.sums.values():
            builder.store(ir.Constant(simd.VECTOR, [0.0] * LANES), slot)
        last = builder.select(is_last, count, after)
        if isinstance(x, TapWindows):
            self.sum_windows(x, step, first, last)
        else:
            self.sum_map(x, first, last)
        with builder.if_then(builder.icmp_signed(">", first, self.constant(0))):
            self.add_running_sums()
        with builder.if_else(is_last) as (then, otherwise):
            with then:
                self.finish(finish)
            with otherwise:
                for cell, slot in self.sums.items():
                    simd.store_vector(builder, builder.load(slot), self.place(*cell))

    def sum_windows(self, x: TapWindows, step: Any, first: Any, last: Any) -> None:
        """Emit the sums over terms that lie where the taps say, run by run."""
        builder = self.builder
        taps = self.at(self.taps, x.taps)
        with cgutils.for_range(builder, x.runs) as loop:
            begin = builder.add(x.first, builder.mul(loop.index, x.distance))
            end = builder.add(begin, x.length)
            begin = builder.select(builder.icmp_signed("<", begin, first), first, begin)
            end = builder.select(builder.icmp_signed(">", end, last), last, end)
            with simd.aligned_loop(builder, begin, end) as k:
                place = builder.add(x.start, builder.load(self.at(taps, k)))
                self.add_term(k, self.at(self.source, place), step)

    def sum_map(self, x: Map, first: Any, last: Any) -> None:
        """Emit the sums over the channels of a map, plane by plane."""
        builder = self.builder
        lanes, source = self.constant(LANES), self.at(self.source, x.start)
        with cgutils.for_range_slice(builder, first, last, lanes) as (channel, _):
            plane = self.at(source, builder.mul(builder.sdiv(channel, lanes), x.plane))
            left = builder.sub(last, channel)
            count = builder.select(builder.icmp_signed("<", left, lanes), left, lanes)
            with simd.aligned_loop(builder, self.constant(0), count) as lane:
                k = builder.add(channel, lane)
                self.add_term(k, self.at(plane, lane), LANES)
                self.ask_for_weights(k)

    def add_term(self, k: Any, first_pixel: Any, step: Any) -> None:
        """Emit the fused multiply-adds of one term: its weights for the panel times its value at every pixel."""
        builder = self.builder
        row = self.at(self.weights, self.scaled(k, self.vectors * LANES))
        w = [simd.load_vector(builder, self.at(row, vector * LANES)) for vector in range(self.vectors)]
        for pixel in range(self.pixels):
            distance = pixel * step if isinstance(step, int) else self.scaled(step, pixel)
            x = simd.splat(builder, builder.load(self.at(first_pixel, distance)))
            for vector in range(self.vectors):
                slot = self.sums[pixel, vector]
                builder.store(simd.fused_multiply_add(builder, x, w[vector], builder.load(slot)), slot)

    def ask_for_weights(self, k: Any) -> None:
        """Emit a term's hint; a tile of one pixel reads its weights faster than any could be asked for."""
        if self.pixels > 1:
            simd.prefetch(self.builder, self.at(self.ahead, self.scaled(k, ASKED)))

    def add_running_sums(self) -> None:
        """Emit what adds the sums of the blocks before."""
        builder = self.builder
        for cell, slot in self.sums.items():
            before = simd.load_vector(builder, self.place(*cell))
            builder.store(builder.fadd(before, builder.load(slot)), slot)

    def finish(self, finish: Finish) -> None:
        """Emit factor, bias, residual, clamp and the stores."""
        builder, row = self.builder, self.vectors * LANES
        factors = self.at(self.weights, self.scaled(self.terms.number, row))
        for (_, vector), slot in self.sums.items():
            factor = simd.load_vector(builder, self.at(factors, vector * LANES))
            bias = simd.load_vector(builder, self.at(factors, row + vector * LANES))
            builder.store(simd.fused_multiply_add(builder, builder.load(slot), factor, bias), slot)
        with builder.if_then(builder.icmp_signed("!=", finish.residual, self.constant(0))):
            for cell, slot in self.sums.items():
                other = simd.load_vector(builder, self.at(self.place(*cell), finish.residual))
                builder.store(builder.fadd(builder.load(slot), other), slot)
        low, high = simd.splat(builder, finish.low), simd.splat(builder, finish.high)
        for cell, slot in self.sums.items():
            result = simd.clamp_vector(builder, builder.load(slot), low, high)
            simd.store_vector(builder, result, self.place(*cell))
