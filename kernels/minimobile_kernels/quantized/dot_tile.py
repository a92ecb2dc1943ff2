"""The register tile of quantised networks: a block of pixels times a panel of output channels, in sums of int32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.host import LANES, REGISTERS
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.constants import GROUP
from minimobile_kernels.quantized.estimate import Bytes, emit_bytes, load_row
from minimobile_kernels.quantized.panels import Panel
from minimobile_kernels.quantized.step import Arrays

TILE_PIXELS = (12, 4, 1) if REGISTERS == 32 else (4, 2, 1)  # bytes are written four pixels at a time


class Pixels(NamedTuple):
    """Neighbouring pixels: where the first one's bytes begin, and how far the next one's are from there."""

    start: int
    step: int


def make_dot_tile(shapes: Sequence[tuple[int, int]]) -> Any:
    """Return an intrinsic that computes sums of products of bytes, in any of the shapes (pixels, vectors of channels).

    tile(arrays, pixels, vectors, x, panel, to, sums)

    for pixel p and channel o: sum[p,o] = bias[o] + sum over groups g and bytes b of x[p,g,b] * weight[g,o,b], exactly.
    The last of the shapes is taken where no other fits. The unsigned bytes of group g lie in the arena at x.start +
    p*x.step + taps[g], `GROUP` of them together; among the constants are the taps, int64, and the signed weights,
    [groups][channels of this tile][GROUP]. The bytes go where `to` says, an `estimate.Bytes` whose lines are planes;
    which of them are not certain, and what `sums` is for, `estimate.emit_bytes` says.
    """

    @intrinsic
    def tile(typing_context, arrays, pixels, vectors, x, panel, to, sums):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pairs = zip(signature.args, arguments, strict=True)
            arrays, *size, x, panel, to, sums = (simd.unpack(context, builder, *pair) for pair in pairs)
            doubts = cgutils.alloca_once(builder, simd.INDEX)

            def emit_shape(shape: tuple[int, int]) -> None:
                lines = _emit_sums(builder, shape, arrays, x, panel, to)
                builder.store(emit_bytes(builder, arrays, lines, to, sums), doubts)

            simd.emit_choice(builder, size, shapes, emit_shape)
            return builder.load(doubts)

        return types.int64(arrays, types.int64, types.int64, x, panel, to, types.int64), emit

    return tile


def _emit_sums(
    builder: Any, shape: tuple[int, int], arrays: Arrays, x: Pixels, panel: Panel, to: Bytes
) -> list[list[Any]]:
    """Emit the sums of a tile: for every vector of channels those of its pixels."""
    pixels, vectors = shape

    def at(pointer: Any, *factors: Any) -> Any:
        """Emit pointer + the product of the factors, each a number or an emitted value."""
        offset = ir.Constant(simd.INDEX, 1)
        for factor in factors:
            number = ir.Constant(simd.INDEX, factor) if isinstance(factor, int) else factor
            offset = builder.mul(offset, number)
        return builder.gep(pointer, [offset], inbounds=True)

    first_pixel, weights = at(arrays.arena, x.start), at(arrays.constants, panel.weight)
    taps = builder.bitcast(at(arrays.constants, panel.taps), integers.LONG.as_pointer())
    slots = [[cgutils.alloca_once(builder, simd.INTEGERS) for _ in range(pixels)] for _ in range(vectors)]
    for vector, line in enumerate(slots):
        scales = builder.add(to.scales, builder.mul(to.scales_distance, ir.Constant(simd.INDEX, vector)))
        for slot in line:
            builder.store(load_row(builder, arrays, scales, "bias"), slot)
    with cgutils.for_range(builder, panel.groups) as loop:
        group = at(first_pixel, builder.load(at(taps, loop.index), align=8))
        row = at(weights, loop.index, vectors * LANES * GROUP)
        w = [integers.load_weights(builder, at(row, vector * LANES * GROUP)) for vector in range(vectors)]
        for pixel in range(pixels):
            values = integers.load_group(builder, at(group, x.step, pixel))
            row_slots = [line[pixel] for line in slots]
            totals = [
                integers.add_products(builder, builder.load(slot), values, weights_of)
                for slot, weights_of in zip(row_slots, w, strict=True)
            ]
            for slot, total in zip(row_slots, integers.keep_order(builder, totals), strict=True):
                builder.store(total, slot)
    return [[builder.load(slot) for slot in line] for line in slots]
