"""The 3x3 depthwise filter as a register tile: neighbouring pixels of one row, a vector of channels each.

Pixels that lie outside the image are read from a line of zeros. With finite weights that gives the bits of skipping
them: a sum changes at most the sign of a zero, and the bias, which is never -0, takes that back.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd

TAPS = 3


def make_filter(pixels: int, stride: int | None, has_border: bool) -> Any:
    """Return an intrinsic that filters `pixels` neighbouring outputs of one row for one vector of channels.

    filter(x, row, column, width, x_row, rows, stride, dilation, weights, weight, bias, out, out_start, low, high)

    `row` is where the first of `rows` (1 to 3) input rows inside the image begins, `x_row` the distance to the next,
    `column` the input column of the first output's first tap, `weight` where the weights of the first of those rows
    begin, `bias` where the bias does. With `stride` 1 or 2 (and dilation 1) a pixel is loaded once for all outputs
    that it reaches; None takes any stride and dilation. Without `has_border` all columns lie inside the image.
    """

    @intrinsic
    def filter_pixels(  # type: ignore[no-untyped-def]
        typing_context, x, row, column, width, x_row, rows, any_stride, dilation, weights, weight, bias,
        out, out_start, low, high,
    ):  # fmt: skip
        index = types.int64
        signature = types.void(
            x, index, index, index, index, index, index, index, weights, index, index,
            out, index, types.float32, types.float32,
        )  # fmt: skip

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            names = ("x", "row", "column", "width", "x_row", "rows", "stride", "dilation", "weights", "weight", "bias",
                     "out", "out_start", "low", "high")  # fmt: skip
            given = dict(zip(names, arguments, strict=True))
            array_types = dict(zip(names, signature.args, strict=True))

            def address(name: str, start: str) -> Any:
                return simd.element_pointer(builder, context, array_types[name], given[name], given[start])

            _Filter(builder, given, address, pixels, stride, has_border).emit()
            return context.get_dummy_value()

        return signature, emit

    return filter_pixels


class _Filter:
    """Emits one tile. Every method writes instructions; none of them computes."""

    def __init__(
        self, builder: Any, given: dict[str, Any], address: Any, pixels: int, stride: int | None, border: bool
    ):
        self.builder = builder
        self.given = given
        self.pixels = pixels
        self.stride = stride
        self.has_border = border
        self.row = address("x", "row")
        self.weights = address("weights", "weight")
        self.bias = address("weights", "bias")
        self.out = address("out", "out_start")
        self.sums = [cgutils.alloca_once(builder, simd.VECTOR) for _ in range(pixels)]
        zeros = ir.Constant(ir.ArrayType(simd.FLOAT, simd.LANES), [0.0] * simd.LANES)
        line = cgutils.global_constant(builder, "zero_line", zeros)
        self.zero_line = builder.bitcast(line, simd.FLOAT.as_pointer())

    def constant(self, value: int) -> Any:
        return ir.Constant(simd.INDEX, value)

    def vector_at(self, pointer: Any, index: Any) -> Any:
        """Emit pointer + index vectors."""
        value = self.constant(index) if isinstance(index, int) else index
        return self.builder.gep(pointer, [self.builder.mul(value, self.constant(simd.LANES))], inbounds=True)

    def emit(self) -> None:
        builder = self.builder
        for slot in self.sums:
            builder.store(ir.Constant(simd.VECTOR, [0.0] * simd.LANES), slot)
        with cgutils.for_range(builder, self.given["rows"]) as loop:
            row = builder.gep(self.row, [builder.mul(loop.index, self.given["x_row"])], inbounds=True)
            weights = self.vector_at(self.weights, builder.mul(loop.index, self.constant(TAPS)))
            self.add_row(row, [simd.load_vector(builder, self.vector_at(weights, tap)) for tap in range(TAPS)])
        low, high = simd.splat(builder, self.given["low"]), simd.splat(builder, self.given["high"])
        bias = simd.load_vector(builder, self.bias)
        for pixel, slot in enumerate(self.sums):
            result = simd.clamp_vector(builder, builder.fadd(builder.load(slot), bias), low, high)
            simd.store_vector(builder, result, self.vector_at(self.out, pixel))

    def add_row(self, row: Any, w: list[Any]) -> None:
        """Emit the three taps of one input row, for each output in the order kx."""
        if self.stride is None:
            for pixel in range(self.pixels):
                for tap in range(TAPS):
                    distance = self.builder.add(
                        self.builder.mul(self.given["stride"], self.constant(pixel)),
                        self.builder.mul(self.given["dilation"], self.constant(tap)),
                    )
                    self.add_product(pixel, self.load_column(row, distance), w[tap])
            return
        for position in range((self.pixels - 1) * self.stride + TAPS):
            reached = [
                (pixel, position - pixel * self.stride)
                for pixel in range(self.pixels)
                if 0 <= position - pixel * self.stride < TAPS
            ]
            x = self.load_column(row, self.constant(position))
            for pixel, tap in reached:
                self.add_product(pixel, x, w[tap])

    def load_column(self, row: Any, distance: Any) -> Any:
        builder = self.builder
        column = builder.add(self.given["column"], distance)
        pointer = self.vector_at(row, column)
        if self.has_border:
            is_inside = builder.icmp_unsigned("<", column, self.given["width"])
            pointer = builder.select(is_inside, pointer, self.zero_line)
        return simd.load_vector(builder, pointer)

    def add_product(self, pixel: int, x: Any, w: Any) -> None:
        slot = self.sums[pixel]
        self.builder.store(simd.fused_multiply_add(self.builder, x, w, self.builder.load(slot)), slot)
