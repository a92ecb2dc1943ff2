"""Vectors of int32 brought to another scale, by the rules of `quantized.reference.rescale`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.integers import LONG, WORD, call_intrinsic, constant
from minimobile_kernels.simd import INTEGERS, VECTOR, clamp_vector, fused_multiply_add, integers_type, splat

LONGS = ir.VectorType(LONG, LANES // 2)


@intrinsic
def shift_rounded(typing_context, vector, right):  # type: ignore[no-untyped-def]
    """shift_rounded(vector, right): every lane / 2**right, to the nearest, halves up."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, right = arguments
        half = builder.lshr(builder.shl(constant(1), right), constant(1))
        return builder.ashr(builder.add(vector, half), right)

    return integers_type(integers_type, integers_type), emit


@intrinsic
def divide_rounded(typing_context, vector, divisor):  # type: ignore[no-untyped-def]
    """divide_rounded(vector, divisor): every lane / divisor, to the nearest, halves away from zero.

    For |lane| <= 255 * divisor and divisor < 2**16: then a quotient in float32 is truncated to the right whole number,
    for one that is not whole is at least 1/divisor below the next.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, divisor = arguments[0], splat(builder, builder.trunc(arguments[1], WORD), INTEGERS)
        sign = builder.ashr(vector, constant(31))
        half = builder.lshr(divisor, constant(1))
        total = builder.add(vector, builder.sub(builder.xor(half, sign), sign))
        quotient = builder.fdiv(builder.sitofp(total, VECTOR), builder.sitofp(divisor, VECTOR))
        return builder.fptosi(quotient, INTEGERS)

    return integers_type(integers_type, types.int64), emit


def _multiply_high(builder: Any, x: Any, multiplier: Any, rounding: Any, shift: Any) -> Any:
    """Emit (x * multiplier + rounding) >> shift with 64-bit products; two long vectors each of rounding and shift."""
    thirty_two = ir.Constant(LONGS, [32] * (LANES // 2))

    def halves(vector: Any) -> tuple[Any, Any]:
        longs = builder.bitcast(vector, LONGS)
        return builder.ashr(builder.shl(longs, thirty_two), thirty_two), builder.ashr(longs, thirty_two)

    even, odd = (
        builder.ashr(builder.add(builder.mul(a, b), r), s)
        for a, b, r, s in zip(halves(x), halves(multiplier), rounding, shift, strict=True)
    )
    merged = [step for lane in range(0, LANES, 2) for step in (lane, LANES + lane + 1)]
    odd = builder.bitcast(builder.shl(odd, thirty_two), INTEGERS)
    lanes = ir.Constant(ir.VectorType(WORD, LANES), merged)
    return builder.shuffle_vector(builder.bitcast(even, INTEGERS), odd, lanes)


@intrinsic
def scale_twice_rounded(typing_context, vector, multiplier, left, right):  # type: ignore[no-untyped-def]
    """scale_twice_rounded(vector, multiplier, left, right): defined by reference.requantize for "litert"."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, multiplier, left, right = arguments
        rounding = [ir.Constant(LONGS, [1 << 30] * (LANES // 2))] * 2
        shift = [ir.Constant(LONGS, [31] * (LANES // 2))] * 2
        high = _multiply_high(builder, builder.shl(vector, left), multiplier, rounding, shift)
        last = builder.zext(builder.icmp_signed(">", right, constant(0)), INTEGERS)  # of the shifts, if there is one
        minus_one = builder.and_(builder.ashr(high, constant(31)), builder.neg(last))  # below zero, halves go down
        halves = builder.ashr(builder.add(high, minus_one), builder.sub(right, last))
        return builder.ashr(builder.add(halves, last), last)  # half a step is 1 here: before, it could leave int32

    return integers_type(integers_type, integers_type, integers_type, integers_type), emit


@intrinsic
def scale_once_rounded(typing_context, vector, multiplier, left, right):  # type: ignore[no-untyped-def]
    """scale_once_rounded(vector, multiplier, left, right): that for "litert-single-rounding"."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, multiplier, left, right = arguments
        thirty_two = ir.Constant(LONGS, [32] * (LANES // 2))
        longs = builder.bitcast(right, LONGS)
        rights = builder.lshr(builder.shl(longs, thirty_two), thirty_two), builder.lshr(longs, thirty_two)
        shift = [builder.add(part, ir.Constant(LONGS, [31] * (LANES // 2))) for part in rights]
        rounding = [builder.shl(ir.Constant(LONGS, [1 << 30] * (LANES // 2)), part) for part in rights]
        return _multiply_high(builder, builder.shl(vector, left), multiplier, rounding, shift)

    return integers_type(integers_type, integers_type, integers_type, integers_type), emit


@intrinsic
def add_as_floats(typing_context, x, y, by_x, by_y, rest):  # type: ignore[no-untyped-def]
    """add_as_floats(x, y, by_x, by_y, rest): defined by quantized.reference.add_as_floats; the last three hold bits."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, y = (builder.sitofp(steps, VECTOR) for steps in arguments[:2])
        by_x, by_y, rest = (builder.bitcast(bits, VECTOR) for bits in arguments[2:])
        total = fused_multiply_add(builder, x, by_x, fused_multiply_add(builder, y, by_y, rest))
        return builder.fptosi(call_intrinsic(builder, f"llvm.rint.v{LANES}f32", VECTOR, total), INTEGERS)

    return integers_type(*[integers_type] * 5), emit


@intrinsic
def scale_as_float(typing_context, vector, scale):  # type: ignore[no-untyped-def]
    """scale_as_float(vector, scale): defined by quantized.reference.rescale for "xnnpack"."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, scale = arguments
        product = builder.fmul(builder.sitofp(vector, VECTOR), builder.bitcast(scale, VECTOR))
        lowest, highest = (ir.Constant(VECTOR, [value] * LANES) for value in (-(2.0**30), 2.0**30))
        product = clamp_vector(builder, product, lowest, highest)  # beyond all bytes, within int32
        return builder.fptosi(call_intrinsic(builder, f"llvm.rint.v{LANES}f32", VECTOR, product), INTEGERS)

    return integers_type(integers_type, integers_type), emit
