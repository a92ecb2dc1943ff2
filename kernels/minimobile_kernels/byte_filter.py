"""The 3x3 depthwise filter of quantised networks: unsigned bytes in, sums of int32 out.

The sums run in float32: nine products of a byte and a weight of nine bits are less than 2**24, and so exact.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels import integers, simd
from minimobile_kernels.filter import Filter

LINE_PIXELS = 15  # of a line outside the image: as wide as seven outputs of stride 2 reach


def make_byte_filter(rows: int, pixels: int, stride: int | None) -> Any:
    """Return an intrinsic that sums 3x3 windows for `rows` x `pixels` neighbouring outputs and a vector of channels.

    filter(x, image, x_row, top, height, column, width, stride, dilation, weights, weight, lines, line, sums,
    sums_start, sums_row)

    As `filter.make_filter`, with these differences: x is in unsigned bytes; the nine weights are float32 that hold
    whole numbers of at most nine bits and a sign; what lies outside the image is read from `line`, a line of zero
    points as long as the tile is wide; row r and pixel p go to sums_start + r*sums_row + p*LANES.
    """

    @intrinsic
    def filter_pixels(  # type: ignore[no-untyped-def]
        typing_context, x, image, x_row, top, height, column, width, any_stride, dilation, weights, weight,
        lines, line, sums, sums_start, sums_row,
    ):  # fmt: skip
        index = types.int64
        signature = types.void(
            x, index, index, index, index, index, index, index, index, weights, index, lines, index, sums, index, index
        )

        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            names = ("x", "image", "x_row", "top", "height", "column", "width", "stride", "dilation", "weights",
                     "weight", "lines", "line", "out", "out_start", "out_row")  # fmt: skip
            given = dict(zip(names, arguments, strict=True))
            array_types = dict(zip(names, signature.args, strict=True))

            def address(name: str, start: str) -> Any:
                return simd.element_pointer(builder, context, array_types[name], given[name], given[start])

            _ByteFilter(builder, given, address, rows, pixels, stride).emit()
            return context.get_dummy_value()

        return signature, emit

    return filter_pixels


class _ByteFilter(Filter):
    def outside(self, address: Any) -> Any:
        return address("lines", "line")

    def load(self, pointer: Any) -> Any:
        narrow = self.builder.load(self.builder.bitcast(pointer, integers.BYTES.as_pointer()), align=1)
        return self.builder.uitofp(narrow, simd.VECTOR)

    def finish(self) -> None:
        builder = self.builder
        for (row, pixel), total in self.sums.items():
            line = builder.gep(self.out, [builder.mul(self.given["out_row"], self.constant(row))], inbounds=True)
            pointer = builder.bitcast(self.vector_at(line, pixel), simd.INTEGERS.as_pointer())
            builder.store(builder.fptosi(total, simd.INTEGERS), pointer, align=4)
