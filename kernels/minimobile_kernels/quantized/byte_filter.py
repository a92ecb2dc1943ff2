"""The 3x3 depthwise filter of quantised networks: unsigned bytes in, bytes or sums of int32 out.

The three pixels of a window's column make one group of bytes per channel, so that a window is three products of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.filter import TAPS, Windows, WindowTile
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.constants import GROUP
from minimobile_kernels.quantized.estimate import Bytes, emit_bytes, load_row
from minimobile_kernels.quantized.step import Arrays


class Filters(NamedTuple):
    """Where a plane's weights begin among the constants, and a line of zero points, for what lies outside the image.

    The line is as long as a tile is wide.
    """

    weight: int
    line: int


def make_byte_filter(rows: int, shapes: Sequence[tuple[int, int | None, int]]) -> Any:
    """Return an intrinsic that sums 3x3 windows for `rows` x `pixels` neighbouring outputs and a vector of channels.

    filter(arrays, pixels, windows, visits, filters, to, sums)

    in any of the shapes (pixels, stride, visits), of which the last is taken where no other fits; image, windows and
    stride are as for `filter.make_filter`. The weights are signed bytes, [visits][column][LANES][GROUP], the fourth of
    a group is zero; what `visits` of them add up to is the weight. The bytes go where `to` says, an `estimate.Bytes`
    whose lines are rows; which of them are not certain, and what `sums` is for, `estimate.emit_bytes` says.
    """

    @intrinsic
    def filter_pixels(typing_context, arrays, pixels, windows, visits, filters, to, sums):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pairs = zip(signature.args, arguments, strict=True)
            arrays, pixels, windows, visits, *places = (simd.unpack(context, builder, *pair) for pair in pairs)
            doubts = cgutils.alloca_once(builder, simd.INDEX)

            def emit_shape(shape: tuple[int, int | None, int]) -> None:
                builder.store(_ByteFilter(builder, arrays, windows, rows, *shape).emit(*places), doubts)

            simd.emit_choice(builder, (pixels, windows.stride, visits), shapes, emit_shape)
            return builder.load(doubts)

        number = types.int64
        return types.int64(arrays, number, windows, number, filters, to, number), emit

    return filter_pixels


class _ByteFilter(WindowTile):
    """Emits one tile of bytes."""

    def __init__(
        self, builder: Any, arrays: Arrays, windows: Windows, rows: int, pixels: int, stride: int | None, visits: int
    ):
        super().__init__(builder, arrays.arena, windows, rows, pixels, stride)
        self.arrays = arrays
        self.visits = visits

    def emit(self, filters: Filters, to: Bytes, sums: Any) -> Any:
        """Emit the whole tile, and which of its bytes are not certain."""
        bias = load_row(self.builder, self.arrays, to.scales, "bias")
        self.sums = {(row, pixel): bias for row in range(self.rows) for pixel in range(self.pixels)}
        self.line = self.builder.gep(self.arrays.constants, [filters.line], inbounds=True)
        first = self.builder.gep(self.arrays.constants, [filters.weight], inbounds=True)
        self.shares_groups = self.stride == 1 and self.rows == GROUP - TAPS + 1
        self.weights = [self.load_weights(first, row if self.shares_groups else 0) for row in range(self.rows)]
        if self.stride is None:
            for cell in self.sums:
                for kx in range(TAPS):
                    self.add_group(cell, self.join([self.tap_at(cell, ky, kx, self.line) for ky in range(TAPS)]), kx)
        else:
            self.add_columns(self.stride)
        totals = integers.keep_order(self.builder, list(self.sums.values()))
        lines = [totals[row * self.pixels : (row + 1) * self.pixels] for row in range(self.rows)]
        return emit_bytes(self.builder, self.arrays, lines, to, sums)

    def load_weights(self, first: Any, byte: int) -> list[list[Any]]:
        """Emit the weights of every visit and column, moved up by `byte` bytes."""
        return [
            [
                integers.load_weights(self.builder, self.vector_at(first, (visit * TAPS + column) * GROUP), byte)
                for column in range(TAPS)
            ]
            for visit in range(self.visits)
        ]

    def join(self, pixels: list[Any]) -> list[Any]:
        """Emit the group that the pixels of a column make, as it is multiplied in."""
        return integers.part_groups(self.builder, integers.join_groups(self.builder, pixels))

    def add_columns(self, stride: int) -> None:
        """Emit all that every column of the input adds to the outputs: each pixel is loaded once.

        With stride 1, four pixels of a column make the groups of two rows: those of the lower one begin at the second.
        """
        builder = self.builder
        first, last = (self.is_column_inside(self.constant(column)) for column in (0, self.columns - 1))
        lines = []
        for input_row in range((self.rows - 1) * stride + TAPS):
            distance = self.constant(input_row)
            lines.append(builder.select(self.is_row_inside(distance), self.row_at(distance), self.line))
        for column in range(self.columns):
            pixels = [self.vector_at(line, column) for line in lines]
            if column == 0:
                pixels = [builder.select(first, pointer, self.line) for pointer in pixels]
            elif column == self.columns - 1:
                pixels = [builder.select(last, pointer, self.line) for pointer in pixels]
            shared = self.join(pixels) if self.shares_groups else None
            for row in range(self.rows):
                group = shared or self.join(pixels[row * stride : row * stride + TAPS])
                for pixel in range(self.pixels):
                    kx = column - pixel * stride
                    if 0 <= kx < TAPS:
                        self.add_group((row, pixel), group, kx)

    def add_group(self, cell: tuple[int, int], group: list[Any], kx: int) -> None:
        """Emit what one column of a window adds to the sum of an output."""
        for weights in self.weights[cell[0]]:
            self.sums[cell] = integers.add_products(self.builder, self.sums[cell], group, weights[kx])
