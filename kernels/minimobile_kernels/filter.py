"""The 3x3 depthwise filter as a register tile: neighbouring pixels of one or two rows, a vector of channels each.

It does what `depthwise._filter_pixel` does, for 3x3 taps and many pixels at once: each pixel of the input is loaded
once for all outputs that it reaches, and all sums stay in registers.

Pixels that lie outside the image are read from a line of zeros. With finite weights that gives the bits of skipping
them: a sum changes at most the sign of a zero, and adding the bias, which is never -0, takes that back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.host import LANES
from minimobile_kernels.step import Arrays

TAPS = 3


class Windows(NamedTuple):
    """The windows of a tile: the image over which they slide, and where the first one lies on it."""

    image: int  # where the plane's image begins
    height: int
    width: int
    top: int  # row and column of the first window's first tap, which may lie outside
    left: int
    stride: int
    dilation: int


class Rows(NamedTuple):
    """Some output pixels of a plane: where the first one lies, and how far the rows are apart."""

    start: int
    distance: int


def make_filter(rows: int, shapes: Sequence[tuple[int, int | None]]) -> Any:
    """Return an intrinsic that filters `rows` x `pixels` neighbouring outputs for one vector of channels.

    filter(arrays, pixels, windows, weight, out, low, high)

    in any of the shapes (pixels, stride), of which the last is taken where no other fits. Image and outputs lie in the
    arena, nine weights at `weight`, factor and bias after them. With stride 1 or 2 the dilation is 1, every pixel is
    loaded once for all outputs that it reaches, and of each row at most one pixel on either side may lie outside. None
    takes any stride, dilation and padding.
    """

    @intrinsic
    def filter_pixels(typing_context, arrays, pixels, windows, weight, out, low, high):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pairs = zip(signature.args, arguments, strict=True)
            arrays, pixels, windows, weight, out, *limits = (simd.unpack(context, builder, *pair) for pair in pairs)

            def emit_shape(shape: tuple[int, int | None]) -> None:
                _Filter(builder, arrays, windows, rows, *shape, weight).emit(out, *limits)

            simd.emit_choice(builder, (pixels, windows.stride), shapes, emit_shape)
            return context.get_dummy_value()

        number, limit = types.int64, types.float32
        return types.void(arrays, number, windows, number, out, limit, limit), emit

    return filter_pixels


class WindowTile:
    """Where the pixels of a tile's windows lie in the arena, and whether they are inside the image.

    Every method writes instructions; none of them computes.
    """

    def __init__(self, builder: Any, arena: Any, windows: Windows, rows: int, pixels: int, stride: int | None):
        self.builder = builder
        self.windows = windows
        self.rows = rows
        self.pixels = pixels
        self.stride = stride
        self.columns = (pixels - 1) * (stride or 1) + TAPS
        self.image = builder.gep(arena, [windows.image], inbounds=True)

    def constant(self, value: int) -> Any:
        """Return a number as an emitted value."""
        return ir.Constant(simd.INDEX, value)

    def vector_at(self, pointer: Any, index: Any) -> Any:
        """Emit pointer + index vectors."""
        value = self.constant(index) if isinstance(index, int) else index
        return self.builder.gep(pointer, [self.builder.mul(value, self.constant(LANES))], inbounds=True)

    def is_row_inside(self, distance: Any) -> Any:
        """Emit whether the row at top + distance is one of the image's."""
        row = self.builder.add(self.windows.top, distance)
        return self.builder.icmp_unsigned("<", row, self.windows.height)

    def is_column_inside(self, distance: Any) -> Any:
        """Emit whether the column at left + distance is one of the image's."""
        column = self.builder.add(self.windows.left, distance)
        return self.builder.icmp_unsigned("<", column, self.windows.width)

    def row_at(self, distance: Any) -> Any:
        """Emit the address of the pixel at `left` in row top + distance."""
        row_size = self.builder.mul(self.windows.width, self.constant(LANES))
        offset = self.builder.mul(self.builder.add(self.windows.top, distance), row_size)
        return self.vector_at(self.builder.gep(self.image, [offset], inbounds=False), self.windows.left)

    def distance(self, output: int, tap: int) -> Any:
        """Emit how far a tap of an output's window lies from the tile's first, along rows or columns."""
        steps = self.builder.mul(self.windows.stride, self.constant(output))
        return self.builder.add(steps, self.builder.mul(self.windows.dilation, self.constant(tap)))

    def tap_at(self, cell: tuple[int, int], ky: int, kx: int, outside: Any) -> Any:
        """Emit the address of one tap of one output, or `outside` where it is outside."""
        down, right = self.distance(cell[0], ky), self.distance(cell[1], kx)
        is_inside = self.builder.and_(self.is_row_inside(down), self.is_column_inside(right))
        return self.builder.select(is_inside, self.vector_at(self.row_at(down), right), outside)


class _Filter(WindowTile):
    """Emits one tile of floats."""

    def __init__(
        self, builder: Any, arrays: Arrays, windows: Windows, rows: int, pixels: int, stride: int | None, weight: Any
    ):
        super().__init__(builder, arrays.arena, windows, rows, pixels, stride)
        self.arena = arrays.arena
        self.filter = builder.gep(arrays.weights, [weight], inbounds=True)
        self.weights = [simd.load_vector(builder, self.vector_at(self.filter, tap)) for tap in range(TAPS * TAPS)]
        zero = ir.Constant(simd.VECTOR, [0.0] * LANES)
        self.sums = {(row, pixel): zero for row in range(rows) for pixel in range(pixels)}
        count = self.columns * LANES
        line = ir.Constant(ir.ArrayType(simd.FLOAT, count), [0.0] * count)  # of zeros, as long as the tile is wide
        self.zeros = builder.bitcast(cgutils.global_constant(builder, "zeros", line), simd.FLOAT.as_pointer())

    def emit(self, out: Rows, low: Any, high: Any) -> None:
        """Emit the whole tile."""
        if self.stride is None:
            for cell in self.sums:
                for tap in range(TAPS * TAPS):
                    pointer = self.tap_at(cell, *divmod(tap, TAPS), self.zeros)
                    self.add_product(cell, simd.load_vector(self.builder, pointer), tap)
        else:
            first = self.is_column_inside(self.constant(0))
            last = self.is_column_inside(self.constant(self.columns - 1))
            for input_row in range((self.rows - 1) * self.stride + TAPS):
                self.add_row(input_row, self.stride, first, last)
        self.finish(out, low, high)

    def add_row(self, input_row: int, stride: int, is_first_inside: Any, is_last_inside: Any) -> None:
        """Emit all that one input row adds to the outputs, for each of them in the order kx."""
        builder = self.builder
        distance = self.constant(input_row)
        row = builder.select(self.is_row_inside(distance), self.row_at(distance), self.zeros)
        reached = [
            (output, input_row - output * stride)
            for output in range(self.rows)
            if 0 <= input_row - output * stride < TAPS
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
                    kx = column - pixel * stride
                    if 0 <= kx < TAPS:
                        self.add_product((output, pixel), x, ky * TAPS + kx)

    def add_product(self, cell: tuple[int, int], x: Any, tap: int) -> None:
        """Emit what one pixel and one tap add to the sum of an output."""
        self.sums[cell] = simd.fused_multiply_add(self.builder, x, self.weights[tap], self.sums[cell])

    def finish(self, out: Rows, low: Any, high: Any) -> None:
        """Emit factor, bias, clamp and the stores."""
        builder = self.builder
        low, high = simd.splat(builder, low), simd.splat(builder, high)
        factor, bias = (simd.load_vector(builder, self.vector_at(self.filter, TAPS * TAPS + row)) for row in (0, 1))
        for (row, pixel), total in self.sums.items():
            scaled = simd.fused_multiply_add(builder, total, factor, bias)
            result = simd.clamp_vector(builder, scaled, low, high)
            start = builder.add(out.start, builder.mul(out.distance, self.constant(row)))
            simd.store_vector(builder, result, self.vector_at(builder.gep(self.arena, [start], inbounds=True), pixel))
