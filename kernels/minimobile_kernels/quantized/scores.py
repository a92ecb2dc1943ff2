"""What turns scores into answers: softmax, and the largest of them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import share
from minimobile_kernels.quantized.constants import PLACE_BITS, WORD_BYTES
from minimobile_kernels.quantized.integers import (
    LONG,
    WORD,
    call_intrinsic,
    constant,
    load_bytes,
    load_word,
    store_word,
)
from minimobile_kernels.quantized.reference_activations import SUM_BITS
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.simd import INTEGERS, broadcast, integers_type, keep_apart, splat


@compiled
def softmax(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Compute softmax over channels, of which there are at most `MOST_CHANNELS`.

    Defined by reference_activations.softmax. At `step.powers` is the exponential of every difference 0..255 in
    Q0.31, then the same for the sum, in Q12.19.
    """
    first, last = share(step.batch * step.height * step.width, 1, part, parts)
    for pixel in range(first, last):
        _softmax_pixel(step, arrays, pixel * LANES)


@compiled
def _softmax_pixel(step: Any, arrays: Arrays, pixel: int) -> None:
    keep_apart()
    arena, constants = arrays.arena, arrays.constants
    largest = 0
    for start in range(0, step.channels, LANES):
        source = step.x + start // LANES * step.x_plane + pixel
        for lane in range(min(LANES, step.channels - start)):
            largest = max(largest, arena[source + lane])
    powers, addends = step.powers, step.powers + 256 * WORD_BYTES
    total = 0
    for start in range(0, step.channels, LANES):
        source = step.x + start // LANES * step.x_plane + pixel
        for lane in range(min(LANES, step.channels - start)):
            total += load_word(constants, addends + (largest - arena[source + lane]) * WORD_BYTES)
    digits = 0
    while total >> digits:
        digits += 1
    over = _reciprocal((total << (32 - digits)) - (1 << 31))
    shift = digits - (31 - SUM_BITS) - 1 + 31 - 8
    for start in range(0, step.channels, LANES):
        source = step.x + start // LANES * step.x_plane + pixel
        target = step.out + start // LANES * step.out_plane + pixel
        for lane in range(min(LANES, step.channels - start)):
            power = _times(load_word(constants, powers + (largest - arena[source + lane]) * WORD_BYTES), over)
            arena[target + lane] = min((power + (1 << (shift - 1))) >> shift, 255)


@compiled
def _times(left: Any, right: Any) -> Any:
    """Multiply fixed-point numbers. Defined by reference_activations.times."""
    return (left * right + (1 << 30)) >> 31


@compiled
def _reciprocal(x: Any) -> Any:
    """Return 1 / (1 + x). Defined by reference_activations.reciprocal."""
    half = (x + (1 << 31)) >> 1
    estimate = 1515870810 + _times(half, -1010580540)
    for _ in range(3):
        estimate += _times(estimate, (1 << 29) - _times(half, estimate)) << 2
    return min(estimate << 1, (1 << 31) - 1)


@compiled
def argmax(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Write the channel of the largest byte of every pixel, the first of equals, to the caller's result.

    Defined by reference_maps.argmax, for at most 2**PLACE_BITS channels. The result gets integers of `step.words` times
    32 bits, the lowest first.
    """
    first, last = share(step.batch * step.height * step.width, 1, part, parts)
    _argmax(step, arrays, first, last)


@compiled
def _argmax(step: Any, arrays: Arrays, first: int, last: int) -> None:
    keep_apart()
    arena, result = arrays.arena, arrays.result
    channels, x_plane, words = step.channels, step.x_plane, step.words
    target = step.out + first * words * 4
    for pixel in range(first, last):
        source, best = step.x + pixel * LANES, broadcast(-1)
        for channel in range(0, channels, LANES):
            best = _larger_keys(best, load_bytes(arena, source), channel, channels)
            source += x_plane
        place = _largest_place(best)
        for _ in range(words):
            store_word(result, target, place)
            target, place = target + 4, 0


@intrinsic
def _larger_keys(typing_context, keys, values, first, channels):  # type: ignore[no-untyped-def]
    """_larger_keys(keys, values, first, channels): the larger of `keys` and the keys of bytes from channel `first` on.

    A key is greater for a greater byte, and among equal bytes for the earlier channel; lanes from `channels` on have
    none.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        keys, values, first, channels = arguments
        lanes = ir.Constant(INTEGERS, list(range(LANES)))
        channel = builder.add(splat(builder, builder.trunc(first, WORD), INTEGERS), lanes)
        place = builder.sub(constant((1 << PLACE_BITS) - 1), channel)
        own = builder.or_(builder.shl(values, constant(PLACE_BITS)), place)
        is_channel = builder.icmp_signed("<", channel, splat(builder, builder.trunc(channels, WORD), INTEGERS))
        is_larger = builder.and_(is_channel, builder.icmp_signed(">", own, keys))
        return builder.select(is_larger, own, keys)

    return integers_type(integers_type, integers_type, types.int64, types.int64), emit


@intrinsic
def _largest_place(typing_context, keys):  # type: ignore[no-untyped-def]
    """_largest_place(keys): the channel of the largest key."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        key = call_intrinsic(builder, f"llvm.vector.reduce.smax.v{LANES}i32", WORD, arguments[0])
        place = builder.and_(key, ir.Constant(WORD, (1 << PLACE_BITS) - 1))
        return builder.zext(builder.sub(ir.Constant(WORD, (1 << PLACE_BITS) - 1), place), LONG)

    return types.int64(integers_type), emit
