"""The register tile of quantised networks: a block of pixels times a panel of output channels, in sums of int32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.integers import GROUP
from minimobile_kernels.quantized.step import Arrays

TILE_PIXELS = (12, 4, 1) if simd.REGISTERS == 32 else (4, 2, 1)  # bytes are written four pixels at a time


class Pixels(NamedTuple):
    """Neighbouring pixels: where the first one's bytes begin, and how far the next one's are from there."""

    start: int
    step: int


class Panel(NamedTuple):
    """The weights of a panel: where its taps begin, how many groups of bytes it has, and where these begin."""

    taps: int
    groups: int
    weight: int


def make_dot_tile(shapes: Sequence[tuple[int, int]]) -> Any:
    """Return an intrinsic that computes sums of products of bytes, in any of the shapes (pixels, vectors of channels).

    tile(arrays, pixels, vectors, x, panel, sums)

    for pixel p and channel o: sums[p,o] = sum over groups g and bytes b of x[p,g,b] * weight[g,o,b], exactly. The last
    of the shapes is taken where no other fits. The unsigned bytes of group g lie in the arena at x.start + p*x.step +
    taps[g], `GROUP` of them together; among the constants are the taps, int64, and the signed weights, [groups]
    [channels of this tile][GROUP]; the sums go to `sums` in the arena, [pixels][channels of this tile].
    """

    @intrinsic
    def tile(typing_context, arrays, pixels, vectors, x, panel, sums):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pairs = zip(signature.args, arguments, strict=True)
            arrays, *size, x, panel, sums = (simd.unpack(context, builder, *pair) for pair in pairs)

            def emit_shape(shape: tuple[int, int]) -> None:
                _emit_tile(builder, shape, arrays, x, panel, sums)

            simd.emit_choice(builder, size, shapes, emit_shape)
            return context.get_dummy_value()

        return types.void(arrays, types.int64, types.int64, x, panel, types.int64), emit

    return tile


def _emit_tile(builder: Any, shape: tuple[int, int], arrays: Arrays, x: Pixels, panel: Panel, sums: Any) -> None:
    pixels, vectors = shape

    def at(pointer: Any, *factors: Any) -> Any:
        """Emit pointer + the product of the factors, each a number or an emitted value."""
        offset = ir.Constant(simd.INDEX, 1)
        for factor in factors:
            number = ir.Constant(simd.INDEX, factor) if isinstance(factor, int) else factor
            offset = builder.mul(offset, number)
        return builder.gep(pointer, [offset], inbounds=True)

    first_pixel, result = at(arrays.arena, x.start), at(arrays.arena, sums)
    weights = at(arrays.constants, panel.weight)
    taps = builder.bitcast(at(arrays.constants, panel.taps), integers.LONG.as_pointer())
    cells = [(pixel, vector) for pixel in range(pixels) for vector in range(vectors)]
    slots = {cell: cgutils.alloca_once(builder, simd.INTEGERS) for cell in cells}
    for slot in slots.values():
        builder.store(integers.constant(0), slot)
    with cgutils.for_range(builder, panel.groups) as loop:
        group = at(first_pixel, builder.load(at(taps, loop.index), align=8))
        row = at(weights, loop.index, vectors * simd.LANES * GROUP)
        w = [integers.load_weights(builder, at(row, vector * simd.LANES * GROUP)) for vector in range(vectors)]
        for pixel in range(pixels):
            values = integers.load_group(builder, at(group, x.step, pixel))
            row_slots = [slots[pixel, vector] for vector in range(vectors)]
            totals = [
                integers.add_products(builder, builder.load(slot), values, weights_of)
                for slot, weights_of in zip(row_slots, w, strict=True)
            ]
            for slot, total in zip(row_slots, integers.keep_order(builder, totals), strict=True):
                builder.store(total, slot)
    for place, cell in enumerate(cells):
        pointer = builder.bitcast(at(result, place * integers.VECTOR_BYTES), simd.INTEGERS.as_pointer())
        builder.store(builder.load(slots[cell]), pointer, align=4)
