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
TILE_PIXELS = (14, 7, 1) if simd.REGISTERS == 32 else (6, 3, 1)


def make_tile(pixels: int, vectors: int, has_taps: bool) -> Any:
    """Return an intrinsic that computes `pixels` x (`vectors` * LANES) outputs of a matrix product.

    tile(x, x_start, x_step, taps, panel, panel_start, terms, residual, residual_start, out, out_start, out_step,
    low, high)

    for pixel p and channel o: clamp(bias[o] + residual[p,o] + sum over k of x[x_start + p*x_step + t(k)] * w[k,o]),
    where t(k) is k, or taps[k] with `has_taps`. `panel` holds the weights as [terms][channels] and then the bias
    [channels]. `residual_start` < 0 means none. All arrays are one-dimensional; p's outputs begin at
    out_start + p*out_step. The sum is cut in blocks of 128 terms as the contract has it; between blocks the running
    sums rest in `out`.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing_context, x, x_start, x_step, taps, panel, panel_start, terms,
        residual, residual_start, out, out_start, out_step, low, high,
    ):  # fmt: skip
        index = types.int64
        signature = types.void(
            x, index, index, taps, panel, index, index, residual, index, out, index, index, types.float32, types.float32
        )

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            names = ("x", "x_start", "x_step", "taps", "panel", "panel_start", "terms", "residual", "residual_start",
                     "out", "out_start", "out_step", "low", "high")  # fmt: skip
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
        self.address = address
        self.pixels = pixels
        self.vectors = vectors
        self.has_taps = has_taps
        self.cells = [(pixel, vector) for pixel in range(pixels) for vector in range(vectors)]
        self.sums = {cell: cgutils.alloca_once(builder, simd.VECTOR) for cell in self.cells}
        zero = self.constant(0)
        self.x = [address("x", self.offset("x_start", pixel, "x_step")) for pixel in range(pixels)]
        self.out = {
            (pixel, vector): address("out", self.offset("out_start", pixel, "out_step", vector * simd.LANES))
            for pixel, vector in self.cells
        }
        self.weights = address("panel", given["panel_start"])
        self.taps = address("taps", zero)

    def constant(self, value: int) -> Any:
        return ir.Constant(simd.INDEX, value)

    def offset(self, start: str, pixel: int, step: str, more: int = 0) -> Any:
        jump = self.builder.mul(self.given[step], self.constant(pixel))
        return self.builder.add(self.builder.add(self.given[start], jump), self.constant(more))

    def emit(self) -> None:
        builder, terms = self.builder, self.given["terms"]
        size = self.constant(BLOCK)
        full_blocks = builder.sdiv(builder.sub(terms, self.constant(1)), size)  # all but the last, which may be short
        with cgutils.for_range(builder, full_blocks) as loop:
            start = builder.mul(loop.index, size)
            self.sum_block(start, builder.add(start, size))
            self.add_running_sums(start)
            for cell in self.cells:
                simd.store_vector(builder, builder.load(self.sums[cell]), self.out[cell])
        start = builder.mul(full_blocks, size)
        self.sum_block(start, terms)
        self.add_running_sums(start)
        self.finish()

    def sum_block(self, first: Any, last: Any) -> None:
        builder = self.builder
        for cell in self.cells:
            builder.store(ir.Constant(simd.VECTOR, [0.0] * simd.LANES), self.sums[cell])
        with cgutils.for_range_slice(builder, first, last, self.constant(1)) as (k, _):
            row = builder.gep(self.weights, [builder.mul(k, self.constant(self.vectors * simd.LANES))], inbounds=True)
            w = [
                simd.load_vector(builder, builder.gep(row, [self.constant(vector * simd.LANES)], inbounds=True))
                for vector in range(self.vectors)
            ]
            term = builder.load(builder.gep(self.taps, [k], inbounds=True)) if self.has_taps else k
            for pixel in range(self.pixels):
                value = builder.load(builder.gep(self.x[pixel], [term], inbounds=True))
                x = simd.splat(builder, value)
                for vector in range(self.vectors):
                    slot = self.sums[pixel, vector]
                    builder.store(simd.fused_multiply_add(builder, x, w[vector], builder.load(slot)), slot)

    def add_running_sums(self, start: Any) -> None:
        builder = self.builder
        with builder.if_then(builder.icmp_signed(">", start, self.constant(0))):
            for cell in self.cells:
                before = simd.load_vector(builder, self.out[cell])
                builder.store(builder.fadd(before, builder.load(self.sums[cell])), self.sums[cell])

    def finish(self) -> None:
        builder, given = self.builder, self.given
        bias_row = builder.mul(given["terms"], self.constant(self.vectors * simd.LANES))
        for pixel, vector in self.cells:
            offset = builder.add(bias_row, self.constant(vector * simd.LANES))
            bias = simd.load_vector(builder, builder.gep(self.weights, [offset], inbounds=True))
            slot = self.sums[pixel, vector]
            builder.store(builder.fadd(builder.load(slot), bias), slot)
        with builder.if_then(builder.icmp_signed(">=", given["residual_start"], self.constant(0))):
            for pixel, vector in self.cells:
                offset = self.offset("residual_start", pixel, "out_step", vector * simd.LANES)
                slot = self.sums[pixel, vector]
                other = simd.load_vector(builder, self.address("residual", offset))
                builder.store(builder.fadd(builder.load(slot), other), slot)
        low, high = simd.splat(builder, given["low"]), simd.splat(builder, given["high"])
        for cell in self.cells:
            result = simd.clamp_vector(builder, builder.load(self.sums[cell]), low, high)
            simd.store_vector(builder, result, self.out[cell])
