"""The 3x3 depthwise filter of quantised networks: unsigned bytes in, sums of int32 out.

The three pixels of a window's column make one group of bytes per channel, so that a window is three products of groups.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.filter import TAPS, WindowTile
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.integers import GROUP

VISITS = 3  # at most, for weights of nine bits and a sign in signed bytes
LINE_PIXELS = 17  # of a line outside the image: as wide as eight outputs of stride 2 reach


def make_byte_filter(rows: int, pixels: int, stride: int | None, visits: int) -> Any:
    """Return an intrinsic that sums 3x3 windows for `rows` x `pixels` neighbouring outputs and a vector of channels.

    filter(x, image, x_row, top, height, column, width, stride, dilation, weights, weight, lines, line, sums,
    sums_start)

    `image`, `x_row`, `top`, `height`, `column`, `width`, `stride` and `dilation` are as for `filter.make_filter`. The
    weights are signed bytes, [visits][column][LANES][GROUP], the fourth of a group is zero; what `visits` of them add
    up to is the weight. What lies outside the image is read from `line`, a line of zero points as long as the tile is
    wide. The sums go to `sums_start`, [rows][pixels][LANES].
    """

    @intrinsic
    def filter_pixels(  # type: ignore[no-untyped-def]
        typing_context, x, image, x_row, top, height, column, width, any_stride, dilation, weights, weight,
        lines, line, sums, sums_start,
    ):  # fmt: skip
        index = types.int64
        signature = types.void(
            x, index, index, index, index, index, index, index, index, weights, index, lines, index, sums, index
        )

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            names = ("x", "image", "x_row", "top", "height", "column", "width", "stride", "dilation", "weights",
                     "weight", "lines", "line", "sums", "sums_start")  # fmt: skip
            given = dict(zip(names, arguments, strict=True))
            array_types = dict(zip(names, signature.args, strict=True))

            def address(name: str, start: str) -> Any:
                return simd.element_pointer(builder, context, array_types[name], given[name], given[start])

            _ByteFilter(builder, given, address, rows, pixels, stride, visits).emit()
            return context.get_dummy_value()

        return signature, emit

    return filter_pixels


class _ByteFilter(WindowTile):
    """Emits one tile of bytes."""

    def __init__(
        self, builder: Any, given: dict[str, Any], address: Any, rows: int, pixels: int, stride: int | None, visits: int
    ):
        super().__init__(builder, given, address, rows, pixels, stride)
        self.line = address("lines", "line")
        self.sums_pointer = address("sums", "sums_start")
        start = address("weights", "weight")
        self.weights = [
            [
                integers.load_weights(builder, self.vector_at(start, (visit * TAPS + column) * GROUP))
                for column in range(TAPS)
            ]
            for visit in range(visits)
        ]
        self.sums = {(row, pixel): integers.constant(0) for row in range(rows) for pixel in range(pixels)}

    def emit(self) -> None:
        """Emit the whole tile."""
        if self.stride is None:
            for cell in self.sums:
                for kx in range(TAPS):
                    pixels = [self.load(self.tap_at(cell, ky, kx, self.line)) for ky in range(TAPS)]
                    self.add_group(cell, integers.part_groups(self.builder, self.stack(pixels)), kx)
        else:
            self.add_columns(self.stride)
        for place, total in enumerate(self.sums.values()):
            pointer = self.vector_at(self.sums_pointer, place)
            self.builder.store(total, self.builder.bitcast(pointer, simd.INTEGERS.as_pointer()), align=4)

    def load(self, pointer: Any) -> Any:
        """Emit one pixel's vector of channels, each in the low byte of its lane."""
        narrow = self.builder.load(self.builder.bitcast(pointer, integers.BYTES.as_pointer()), align=1)
        return self.builder.zext(narrow, simd.INTEGERS)

    def stack(self, pixels: list[Any]) -> Any:
        """Emit the group that the three pixels of a column make."""
        builder = self.builder
        second, third = (builder.shl(pixel, integers.constant(8 * byte)) for byte, pixel in enumerate(pixels[1:], 1))
        return builder.or_(builder.or_(pixels[0], second), third)

    def add_columns(self, stride: int) -> None:
        """Emit all that every column of the input adds to the outputs: each pixel is loaded once."""
        builder = self.builder
        first = self.is_within("column", self.constant(0), "width")
        last = self.is_within("column", self.constant(self.columns - 1), "width")
        lines = []
        for input_row in range((self.rows - 1) * stride + TAPS):
            row, is_inside = self.row_at(self.constant(input_row))
            lines.append(builder.select(is_inside, row, self.line))
        for column in range(self.columns):
            pixels = []
            for line in lines:
                pointer = self.vector_at(line, column)
                if column == 0:
                    pointer = builder.select(first, pointer, self.line)
                elif column == self.columns - 1:
                    pointer = builder.select(last, pointer, self.line)
                pixels.append(self.load(pointer))
            group = None
            for row in range(self.rows):
                if group is not None and stride == 1:  # the group above, moved up by one pixel
                    newest = builder.shl(pixels[row + TAPS - 1], integers.constant(16))
                    group = builder.or_(builder.lshr(group, integers.constant(8)), newest)
                else:
                    group = self.stack(pixels[row * stride : row * stride + TAPS])
                parts = integers.part_groups(builder, group)
                for pixel in range(self.pixels):
                    kx = column - pixel * stride
                    if 0 <= kx < TAPS:
                        self.add_group((row, pixel), parts, kx)

    def add_group(self, cell: tuple[int, int], parts: list[Any], kx: int) -> None:
        """Emit what one column of a window adds to the sum of an output."""
        for weights in self.weights:
            self.sums[cell] = integers.add_products(self.builder, self.sums[cell], parts, weights[kx])
