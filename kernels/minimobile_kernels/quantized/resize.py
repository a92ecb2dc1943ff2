"""Bilinear resizing of maps of bytes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.quantized.integers import BYTES, constant, store_bytes
from minimobile_kernels.quantized.reference_maps import RESIZE_BITS
from minimobile_kernels.simd import INTEGERS, LANES, VECTOR, element_pointer, integers_type, keep_apart, splat
from minimobile_kernels.step import plane_count, share

POINT = 4  # of an output row or column: its two neighbours and the weights of both


@inlined
def resize_bilinear(step: Any, scales: Any, arena: Any, part: int, parts: int) -> None:
    """Resize bilinearly. Defined by reference_maps.resize_bilinear.

    Shapes: scales: `POINT` numbers for every row and every column of the output, the weights of uint8 as the bits of a
    float32.
    """
    rows = step.batch * step.out_height
    first, last = share(plane_count(step.channels, LANES) * rows, 1, part, parts)
    for item in range(first, last):
        plane, n, i = item // rows, item % rows // step.out_height, item % step.out_height
        image = step.x + plane * step.x_plane + n * step.height * step.width * LANES
        target = step.out + plane * step.out_plane + item % rows * step.out_width * LANES
        _resize_row(step, scales, arena, image, i, target)


@compiled
def _resize_row(step: Any, scales: Any, arena: Any, image: int, i: int, target: int) -> None:
    keep_apart()
    row = step.row_points + i * POINT
    line = step.width * LANES
    above, below = image + scales[row] * line, image + scales[row + 1] * line
    over, under = scales[row + 2], scales[row + 3]
    for j in range(step.out_width):
        column = step.column_points + j * POINT
        left, right = scales[column] * LANES, scales[column + 1] * LANES
        before, after = scales[column + 2], scales[column + 3]
        if step.is_signed:
            value = _interpolate_signed(arena, above + left, below + left, above + right, below + right,
                                        over, under, before, after)  # fmt: skip
        else:
            value = _interpolate_unsigned(arena, above + left, below + left, above + right, below + right,
                                          over, under, before, after)  # fmt: skip
        store_bytes(arena, target + j * LANES, value)


def _make_interpolation(unsigned: bool) -> Any:
    """Return an intrinsic that weighs four pixels: the left ones, above and below, then the right ones."""

    @intrinsic
    def interpolate(  # type: ignore[no-untyped-def]
        typing_context, array, left_above, left_below, right_above, right_below, above, below, left, right
    ):
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pixels = []
            for offset in arguments[1:5]:
                pointer = element_pointer(builder, context, signature.args[0], arguments[0], offset)
                narrow = builder.load(builder.bitcast(pointer, BYTES.as_pointer()), align=1)
                pixels.append(builder.zext(narrow, INTEGERS))
            down, across = arguments[5:7], arguments[7:9]
            weights = [(vertical, horizontal) for horizontal in across for vertical in down]
            return (_emit_unsigned if unsigned else _emit_signed)(builder, pixels, weights)

        offsets, weights = [types.int64] * 4, [types.int32] * 4
        return integers_type(array, *offsets, *weights), emit

    return interpolate


def _emit_unsigned(builder: Any, pixels: list[Any], weights: list[tuple[Any, Any]]) -> Any:
    """Emit value * down * across, summed in order in float32, plus a half, truncated."""
    real = ir.FloatType()
    total = None
    for pixel, pair in zip(pixels, weights, strict=True):
        term = builder.sitofp(pixel, VECTOR)
        for weight in pair:
            term = builder.fmul(term, splat(builder, builder.bitcast(weight, real)))
        total = term if total is None else builder.fadd(total, term)
    return builder.fptosi(builder.fadd(total, ir.Constant(VECTOR, [0.5] * LANES)), INTEGERS)


def _emit_signed(builder: Any, pixels: list[Any], weights: list[tuple[Any, Any]]) -> Any:
    """Emit the sum of (value - 128) * down * across / 2**20, halves away from zero, plus 128."""
    total = constant(0)
    for pixel, (down, across) in zip(pixels, weights, strict=True):
        weight = splat(builder, builder.mul(down, across), INTEGERS)
        total = builder.add(total, builder.mul(builder.sub(pixel, constant(128)), weight))
    bits = 2 * RESIZE_BITS
    is_above_zero = builder.icmp_signed(">", total, constant(0))
    half = builder.select(is_above_zero, constant(1 << (bits - 1)), constant(-(1 << (bits - 1))))
    total = builder.add(total, half)
    below_zero = builder.and_(builder.ashr(total, constant(31)), constant((1 << bits) - 1))
    return builder.add(builder.ashr(builder.add(total, below_zero), constant(bits)), constant(128))


_interpolate_unsigned = _make_interpolation(unsigned=True)
_interpolate_signed = _make_interpolation(unsigned=False)
