"""The 3x3 depthwise filter as a register tile: neighbouring pixels of one or two rows, a vector of channels each.

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


def make_filter(rows: int, pixels: int, stride: int | None) -> Any:
    """Return an intrinsic that filters `rows` x `pixels` neighbouring outputs for one vector of channels.

    filter(x, image, x_row, top, height, column, width, stride, dilation, weights, weight, bias, out, out_start,
    out_row, low, high)

    `image` is where the input image begins and `x_row` the length of its rows; `top` and `column` are the input row
    and column of the first output's first tap, which may lie outside; `weight` is where the nine weights begin, the
    bias after them; `out_row` is the distance of output rows. With `stride` 1 or 2 the dilation is 1, every pixel is
    loaded once for all outputs that it reaches, and of each row at most one pixel on either side may lie outside.
    None takes any stride, dilation and padding.
    """

    @intrinsic
    def filter_pixels(  # type: ignore[no-untyped-def]
        typing_context, x, image, x_row, top, height, column, width, any_stride, dilation, weights, weight,
        out, out_start, out_row, low, high,
    ):  # fmt: skip
        index = types.int64
        signature = types.void(
            x, index, index, index, index, index, index, index, index, weights, index,
            out, index, index, types.float32, types.float32,
        )  # fmt: skip

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            names = ("x", "image", "x_row", "top", "height", "column", "width", "stride", "dilation", "weights",
                     "weight", "out", "out_start", "out_row", "low", "high")  # fmt: skip
            given = dict(zip(names, arguments, strict=True))
            array_types = dict(zip(names, signature.args, strict=True))

            def address(name: str, start: str) -> Any:
                return simd.element_pointer(builder, context, array_types[name], given[name], given[start])

            Filter(builder, given, address, rows, pixels, stride).emit()
            return context.get_dummy_value()

        return signature, emit

    return filter_pixels


class WindowTile:
    """Where the pixels of a tile's windows lie, and whether they are inside the image.

    `given` are the emitted arguments by name, as in `make_filter`, and `address(array, start)` emits an address in one
    of the arrays among them. Every method writes instructions; none of them computes.
    """

    def __init__(self, builder: Any, given: dict[str, Any], address: Any, rows: int, pixels: int, stride: int | None):
        self.builder = builder
        self.given = given
        self.rows = rows
        self.pixels = pixels
        self.stride = stride
        self.columns = (pixels - 1) * (stride or 1) + TAPS
        self.image = address("x", "image")

    def constant(self, value: int) -> Any:
        """Return a number as an emitted value."""
        return ir.Constant(simd.INDEX, value)

    def vector_at(self, pointer: Any, index: Any) -> Any:
        """Emit pointer + index vectors."""
        value = self.constant(index) if isinstance(index, int) else index
        return self.builder.gep(pointer, [self.builder.mul(value, self.constant(simd.LANES))], inbounds=True)

    def is_within(self, start: str, distance: Any, size: str) -> Any:
        """Emit whether 0 <= start + distance < size."""
        return self.builder.icmp_unsigned("<", self.builder.add(self.given[start], distance), self.given[size])

    def row_at(self, distance: Any) -> tuple[Any, Any]:
        """Emit the address of the pixel at `column` in row top + distance, and whether that row is inside."""
        builder, given = self.builder, self.given
        offset = builder.mul(builder.add(given["top"], distance), given["x_row"])
        row = builder.gep(self.image, [offset], inbounds=False)
        return self.vector_at(row, given["column"]), self.is_within("top", distance, "height")

    def distance(self, output: int, tap: int) -> Any:
        """Emit how far a tap of an output's window lies from the tile's first, along rows or columns."""
        steps = self.builder.mul(self.given["stride"], self.constant(output))
        return self.builder.add(steps, self.builder.mul(self.given["dilation"], self.constant(tap)))

    def tap_at(self, cell: tuple[int, int], ky: int, kx: int, outside: Any) -> Any:
        """Emit the address of one tap of one output, or `outside` where it is outside."""
        row, is_row_inside = self.row_at(self.distance(cell[0], ky))
        right = self.distance(cell[1], kx)
        is_inside = self.builder.and_(is_row_inside, self.is_within("column", right, "width"))
        return self.builder.select(is_inside, self.vector_at(row, right), outside)


class Filter(WindowTile):
    """Emits one tile of floats."""

    def __init__(self, builder: Any, given: dict[str, Any], address: Any, rows: int, pixels: int, stride: int | None):
        super().__init__(builder, given, address, rows, pixels, stride)
        self.out = address("out", "out_start")
        self.filter = address("weights", "weight")
        self.weights = [simd.load_vector(builder, self.vector_at(self.filter, tap)) for tap in range(TAPS * TAPS)]
        zero = ir.Constant(simd.VECTOR, [0.0] * simd.LANES)
        self.sums = {(row, pixel): zero for row in range(rows) for pixel in range(pixels)}
        count = self.columns * simd.LANES
        line = ir.Constant(ir.ArrayType(simd.FLOAT, count), [0.0] * count)  # of zeros, as long as the tile is wide
        self.zeros = builder.bitcast(cgutils.global_constant(builder, "zeros", line), simd.FLOAT.as_pointer())

    def emit(self) -> None:
        """Emit the whole tile."""
        if self.stride is None:
            for cell in self.sums:
                for tap in range(TAPS * TAPS):
                    pointer = self.tap_at(cell, *divmod(tap, TAPS), self.zeros)
                    self.add_product(cell, simd.load_vector(self.builder, pointer), tap)
        else:
            first = self.is_within("column", self.constant(0), "width")
            last = self.is_within("column", self.constant(self.columns - 1), "width")
            for input_row in range((self.rows - 1) * self.stride + TAPS):
                self.add_row(input_row, first, last)
        self.finish()

    def add_row(self, input_row: int, is_first_inside: Any, is_last_inside: Any) -> None:
        """Emit all that one input row adds to the outputs, for each of them in the order kx."""
        assert self.stride is not None
        builder = self.builder
        row, is_inside = self.row_at(self.constant(input_row))
        row = builder.select(is_inside, row, self.zeros)
        reached = [
            (output, input_row - output * self.stride)
            for output in range(self.rows)
            if 0 <= input_row - output * self.stride < TAPS
        ]
        for column in range(self.columns):
            pointer = self.vector_at(row, column)
            if column == 0:
                pointer = builder.select(is_first_inside, pointer, self.zeros)
            elif column == self.columns - 1:
                pointer = builder.select(is_last_inside, pointer, self.zeros)
            x = simd.load_vector(builder, pointer)
            for output, ky in reached:
                for pixel in range(self.pixels):
                    kx = column - pixel * self.stride
                    if 0 <= kx < TAPS:
                        self.add_product((output, pixel), x, ky * TAPS + kx)

    def add_product(self, cell: tuple[int, int], x: Any, tap: int) -> None:
        """Emit what one pixel and one tap add to the sum of an output."""
        self.sums[cell] = simd.fused_multiply_add(self.builder, x, self.weights[tap], self.sums[cell])

    def finish(self) -> None:
        """Emit bias, clamp and the stores."""
        builder, given = self.builder, self.given
        low, high = simd.splat(builder, given["low"]), simd.splat(builder, given["high"])
        bias = simd.load_vector(builder, self.vector_at(self.filter, TAPS * TAPS))
        for (row, pixel), total in self.sums.items():
            result = simd.clamp_vector(builder, builder.fadd(total, bias), low, high)
            line = builder.gep(self.out, [builder.mul(given["out_row"], self.constant(row))], inbounds=True)
            simd.store_vector(builder, result, self.vector_at(line, pixel))
