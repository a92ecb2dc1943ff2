"""The register tile of quantised networks: a block of pixels times a panel of output channels, in sums of int32."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.integers import GROUP

TILE_PIXELS = (12, 4, 1) if simd.REGISTERS == 32 else (4, 2, 1)  # bytes are written four pixels at a time


def make_dot_tile(pixels: int, vectors: int) -> Any:
    """Return an intrinsic that computes `pixels` x (`vectors` * LANES) sums of products of bytes.

    tile(x, x_start, x_step, taps, first, count, weights, weight, sums, sums_start)

    for pixel p and channel o: sums[p,o] = sum over groups g and bytes b of x[p,g,b] * weight[g,o,b], exactly. The
    unsigned bytes of group g lie at x_start + p*x_step + taps[first + g], `GROUP` of them together; the signed weights
    at `weight`, [count][channels of this tile][GROUP]; the sums at `sums_start`, [pixels][channels of this tile].
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing_context, x, x_start, x_step, taps, first, count, weights, weight, sums, sums_start
    ):
        index = types.int64
        signature = types.void(x, index, index, taps, index, index, weights, index, sums, index)

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            def address(array: int, offset: Any) -> Any:
                return simd.element_pointer(builder, context, signature.args[array], arguments[array], offset)

            def at(pointer: Any, *factors: Any) -> Any:
                """Emit pointer + the product of the factors, each a number or an emitted value."""
                offset = ir.Constant(simd.INDEX, 1)
                for factor in factors:
                    number = ir.Constant(simd.INDEX, factor) if isinstance(factor, int) else factor
                    offset = builder.mul(offset, number)
                return builder.gep(pointer, [offset], inbounds=True)

            x_pointer, x_step = address(0, arguments[1]), arguments[2]
            tap_pointer = address(3, arguments[4])
            weight_pointer, sums_pointer = address(6, arguments[7]), address(8, arguments[9])
            cells = [(pixel, vector) for pixel in range(pixels) for vector in range(vectors)]
            slots = {cell: cgutils.alloca_once(builder, simd.INTEGERS) for cell in cells}
            for slot in slots.values():
                builder.store(integers.constant(0), slot)
            with cgutils.for_range(builder, arguments[5]) as loop:
                group = at(x_pointer, builder.load(at(tap_pointer, loop.index)))
                row = at(weight_pointer, loop.index, vectors * simd.LANES * GROUP)
                w = [integers.load_weights(builder, at(row, v * simd.LANES * GROUP)) for v in range(vectors)]
                for pixel in range(pixels):
                    values = integers.load_group(builder, at(group, x_step, pixel))
                    row_slots = [slots[pixel, vector] for vector in range(vectors)]
                    totals = [
                        integers.add_products(builder, builder.load(slot), values, weights_of)
                        for slot, weights_of in zip(row_slots, w, strict=True)
                    ]
                    for slot, total in zip(row_slots, integers.keep_order(builder, totals), strict=True):
                        builder.store(total, slot)
            for place, cell in enumerate(cells):
                pointer = builder.bitcast(at(sums_pointer, place * simd.LANES), simd.INTEGERS.as_pointer())
                builder.store(builder.load(slots[cell]), pointer, align=4)
            return context.get_dummy_value()

        return signature, emit

    return tile
