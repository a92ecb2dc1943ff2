"""From sums of int32 that are still in registers to bytes: one product in float32, and whether that was certain.

The definition multiplies by a whole number of 31 bits and rounds. The product here is counted in units of
2**-FRACTION_BITS steps of the output, to which all has been added that the definition adds before it takes the floor:
zero point, half a step, and what its first rounding moves. Where that lies an error above a whole step or more, the
byte is the definition's. Where one lane of a few pixels is nearer, their sums are kept, and `requantize` does them.

Why the truncated estimate of the exact number of units t lies in (t - 1/2, t + 7/2], for bytes: a sum is exact in
float32, for 256 steps are at most 2**(9 + LARGEST_SHIFT); the factor is off by 2**-24 of itself, of 2**24 units by 1
at most; the sum of product and `above`, a whole number, by 1/2 below 2**24; truncated, it is less by less than 1; and
`above` has two units too many. So it has the floor of t in whole steps, unless it is 0 to 3 units above one. What is no
byte is off by a part of itself that small, and clamped to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from minimobile_kernels import simd
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.constants import FRACTION_BITS, SCALES, VECTOR_BYTES
from minimobile_kernels.quantized.estimates import WINDOW
from minimobile_kernels.quantized.step import Arrays

STORED = 4  # pixels whose bytes are written together


class Bytes(NamedTuple):
    """Where the bytes of a tile go, in lines of neighbouring pixels of one plane, and how its sums become bytes."""

    start: int  # the first pixel of the first line
    distance: int  # from a line to the next
    scales: int  # the first line's `SCALES`
    scales_distance: int  # from them to the next line's
    low: int
    high: int
    has_negative: int  # whether bytes below the zero point survive the clamp


def load_row(builder: Any, arrays: Arrays, scales: Any, name: str, vector: Any = simd.INTEGERS) -> Any:
    """Emit one row of the `SCALES` that begin at an index of the constants."""
    place = builder.add(scales, ir.Constant(simd.INDEX, SCALES.index(name) * VECTOR_BYTES))
    pointer = builder.gep(arrays.constants, [place], inbounds=True)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def emit_bytes(builder: Any, arrays: Arrays, lines: Sequence[Sequence[Any]], to: Bytes, sums: Any) -> Any:
    """Emit the end of a tile: its bytes, as `to` says; returns which of them are not certain, as the bits of an int64.

    Every `STORED` pixels of a line have a bit, in order. Where it is set, their sums lie in the arena from `sums` on,
    where they would be if all did: [lines][pixels][LANES]. The lines are emitted vectors.
    """
    index = simd.INDEX
    doubts = cgutils.alloca_once_value(builder, index(0))
    bit, place = 1, 0
    for number, line in enumerate(lines):
        start = builder.add(to.start, builder.mul(to.distance, index(number)))
        scales = builder.add(to.scales, builder.mul(to.scales_distance, index(number)))
        for first in range(0, len(line), STORED):
            some = integers.keep_order(builder, list(line[first : first + STORED]))
            units = _emit_units(builder, arrays, some, scales, to)
            pointer = builder.gep(arrays.arena, [builder.add(start, index(first * LANES))], inbounds=True)
            integers.emit_store(builder, pointer, units, to.low, to.high)
            with builder.if_then(is_any_doubtful(builder, units, WINDOW), likely=False):
                for total in some:
                    _emit_store_sum(builder, arrays, total, builder.add(sums, index(place * VECTOR_BYTES)))
                    place += 1
                builder.store(builder.or_(builder.load(doubts), index(bit)), doubts)
            bit <<= 1
    return builder.load(doubts)


def _emit_units(builder: Any, arrays: Arrays, totals: Sequence[Any], scales: Any, to: Bytes) -> list[Any]:
    """Emit what sums are in units, with all that comes before the floor."""
    factor, above = (load_row(builder, arrays, scales, name, simd.VECTOR) for name in ("factor", "above"))
    slots = [cgutils.alloca_once_value(builder, above) for _ in totals]
    # A branch that is foreseen: to choose for every sum, where all below zero are clamped, cost V1 0.5 4 %.
    with builder.if_then(builder.icmp_signed("!=", to.has_negative, simd.INDEX(0))):
        below = load_row(builder, arrays, scales, "below", simd.VECTOR)
        for total, slot in zip(totals, slots, strict=True):
            is_below = builder.icmp_signed("<", total, integers.constant(0))
            builder.store(builder.select(is_below, below, above), slot)
    units = []
    for total, slot in zip(totals, slots, strict=True):
        value = builder.sitofp(total, simd.VECTOR)
        product = simd.fused_multiply_add(builder, value, factor, builder.load(slot))
        units.append(builder.fptosi(product, simd.INTEGERS))
    return units


def is_any_doubtful(builder: Any, units: Sequence[Any], window: int) -> Any:
    """Emit whether any lane is less than a window above a whole step."""
    lowest, *others = (builder.bitcast(number, integers.HALVES) for number in units)
    for halves in others:  # of lower halves the least one counts
        name = f"llvm.umin.v{2 * LANES}i16"
        lowest = integers.call_intrinsic(builder, name, integers.HALVES, lowest, halves)
    above_step = builder.and_(builder.bitcast(lowest, simd.INTEGERS), integers.constant(2**FRACTION_BITS - window))
    are_near = builder.icmp_signed("==", above_step, integers.constant(0))
    together = builder.bitcast(are_near, ir.IntType(LANES))
    return builder.icmp_unsigned("!=", together, together.type(0))


def _emit_store_sum(builder: Any, arrays: Arrays, total: Any, place: Any) -> None:
    pointer = builder.gep(arrays.arena, [place], inbounds=True)
    builder.store(total, builder.bitcast(pointer, simd.INTEGERS.as_pointer()), align=4)
