"""Bilinear resizing of maps of bytes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.quantized.constants import WORD_BYTES
from minimobile_kernels.quantized.integers import WORD, constant, load_bytes, load_word, store_bytes
from minimobile_kernels.quantized.reference import ONNX_RUNTIME
from minimobile_kernels.quantized.reference_maps import RESIZE_BITS
from minimobile_kernels.quantized.step import BYTES_OF, Arrays
from minimobile_kernels.simd import INTEGERS, VECTOR, add, integers_type, keep_apart, splat, vector_type

POINT = 4  # of an output row or column: its two neighbours and the weights of both
FIRST_WRITTEN = BYTES_OF.index(ONNX_RUNTIME[0])  # from this entry of BYTES_OF on


@compiled
def resize_bilinear(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Resize bilinearly. Defined by reference_maps.resize_bilinear.

    At `step.row_points` and `step.column_points` are `POINT` numbers for every row and every column of the output, the
    weights of uint8, and all of ONNX Runtime's, as the bits of a float32; of the last, x_zero is
    reference.written_zero.
    """
    rows = step.batch * step.out_height
    first, last = share(ceil_div(step.channels, LANES) * rows, 1, part, parts)
    for item in range(first, last):
        plane, n, i = item // rows, item % rows // step.out_height, item % step.out_height
        image = step.x + plane * step.x_plane + n * step.height * step.width * LANES
        target = step.out + plane * step.out_plane + item % rows * step.out_width * LANES
        _resize_row(step, arrays, image, i, target)


@compiled
def _resize_row(step: Any, arrays: Arrays, image: int, i: int, target: int) -> None:
    keep_apart()
    arena, constants = arrays.arena, arrays.constants
    line = step.width * LANES
    first, second, over, under = _load_point(constants, step.row_points, i)
    above, below = first * line, second * line
    columns, is_signed, out_width = step.column_points, step.is_signed, step.out_width
    is_written, written = step.bytes_of >= FIRST_WRITTEN, step.x_zero
    last_left, last_right = -1, -1
    for j in range(out_width):
        first, second, before, after = _load_point(constants, columns, j)
        left, right = image + first * LANES, image + second * LANES
        is_new = left != last_left or right != last_right
        last_left, last_right = left, right
        if is_new:
            left_above, left_below = load_bytes(arena, left + above), load_bytes(arena, left + below)
            right_above, right_below = load_bytes(arena, right + above), load_bytes(arena, right + below)
        if is_written:
            value = _blend_written(
                left_above, right_above, left_below, right_below, before, after, over, under, written
            )
        elif is_signed:
            if is_new:
                left_sum = add(_weigh_signed(left_above, over), _weigh_signed(left_below, under))
                right_sum = add(_weigh_signed(right_above, over), _weigh_signed(right_below, under))
            value = _blend_signed(left_sum, right_sum, before, after)
        else:
            if is_new:
                left_over, left_under = _weigh(left_above, over), _weigh(left_below, under)
                right_over, right_under = _weigh(right_above, over), _weigh(right_below, under)
            value = _blend(left_over, left_under, right_over, right_under, before, after)
        store_bytes(arena, target + j * LANES, value)


@compiled
def _load_point(constants: Any, points: int, index: int) -> tuple[int, int, int, int]:
    place = points + index * POINT * WORD_BYTES
    return (
        load_word(constants, place),
        load_word(constants, place + WORD_BYTES),
        load_word(constants, place + 2 * WORD_BYTES),
        load_word(constants, place + 3 * WORD_BYTES),
    )


@intrinsic
def _weigh(typing_context, values, weight):  # type: ignore[no-untyped-def]
    """_weigh(values, weight): the values, in float32, times the float32 whose bits are the low half of an int64."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fmul(builder.sitofp(arguments[0], VECTOR), _real(builder, arguments[1]))

    return vector_type(integers_type, types.int64), emit


@intrinsic
def _blend(typing_context, left_above, left_below, right_above, right_below, left, right):  # type: ignore[no-untyped-def]
    """_blend(left_above, left_below, right_above, right_below, left, right): the left ones times `left` plus the right
    ones times `right`, summed in order, plus a half, truncated.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        left, right = (_real(builder, weight) for weight in arguments[4:])
        first, *rest = (builder.fmul(x, w) for x, w in zip(arguments[:4], (left, left, right, right), strict=True))
        for term in (*rest, ir.Constant(VECTOR, [0.5] * LANES)):
            first = builder.fadd(first, term)
        return builder.fptosi(first, INTEGERS)

    return integers_type(*[vector_type] * 4, *[types.int64] * 2), emit


@intrinsic
def _blend_written(typing_context, left_above, right_above, left_below, right_below, left, right, above, below, zero):  # type: ignore[no-untyped-def]
    """_blend_written(left_above, right_above, left_below, right_below, left, right, above, below, zero): the values
    less zero, each times the product of its side's weight and its level's, summed in order, truncated, plus zero.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        left, right, above, below = (_real(builder, weight) for weight in arguments[4:8])
        zero = _whole(builder, arguments[8])
        weights = [builder.fmul(side, level) for level in (above, below) for side in (left, right)]
        first, *rest = (
            builder.fmul(weight, builder.sitofp(builder.sub(x, zero), VECTOR))
            for x, weight in zip(arguments[:4], weights, strict=True)
        )
        for term in rest:
            first = builder.fadd(first, term)
        return builder.add(builder.fptosi(first, INTEGERS), zero)

    return integers_type(*[integers_type] * 4, *[types.int64] * 5), emit


def _whole(builder: Any, number: Any) -> Any:
    return splat(builder, builder.trunc(number, WORD), INTEGERS)


def _real(builder: Any, bits: Any) -> Any:
    return splat(builder, builder.bitcast(builder.trunc(bits, WORD), ir.FloatType()))


@intrinsic
def _weigh_signed(typing_context, values, weight):  # type: ignore[no-untyped-def]
    """_weigh_signed(values, weight): the values minus 128, times a number."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.mul(builder.sub(arguments[0], constant(128)), _whole(builder, arguments[1]))

    return integers_type(integers_type, types.int64), emit


@intrinsic
def _blend_signed(typing_context, left, right, left_weight, right_weight):  # type: ignore[no-untyped-def]
    """_blend_signed(left, right, left_weight, right_weight): the sum of both times their weights, divided by 2**20,
    halves away from zero, plus 128.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        terms = [builder.mul(x, _whole(builder, w)) for x, w in zip(arguments[:2], arguments[2:], strict=True)]
        total, bits = builder.add(*terms), 2 * RESIZE_BITS
        is_above_zero = builder.icmp_signed(">", total, constant(0))
        half = builder.select(is_above_zero, constant(1 << (bits - 1)), constant(-(1 << (bits - 1))))
        total = builder.add(total, half)
        below_zero = builder.and_(builder.ashr(total, constant(31)), constant((1 << bits) - 1))
        return builder.add(builder.ashr(builder.add(total, below_zero), constant(bits)), constant(128))

    return integers_type(*[integers_type] * 2, *[types.int64] * 2), emit
