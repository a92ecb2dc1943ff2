"""The sum of two maps of bytes by two products in float32, as `estimate` does it, and whether that was certain.

The definition brings both bytes to a common scale in whole numbers first, and rounds each twice on the way. What that
and every rounding here can move the result by, in units, is summed in `addition_estimates`; where it is more than
`MARGIN`, nothing is estimated. Truncated, and with `MARGIN` added, an estimate of t lies in (t - 1, t + 2 * MARGIN].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from minimobile_kernels import simd
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.estimate import STORED, is_any_doubtful, load_row
from minimobile_kernels.quantized.integers import FRACTION_BITS
from minimobile_kernels.quantized.reference import ADDED_BITS, BY_FLOATS
from minimobile_kernels.quantized.step import Arrays

MARGIN = 8.0  # units that an estimate may be off to either side
SUM_WINDOW = 16
HALF_DIGIT = 2.0**-24  # of a float32: what rounding moves it by, at most, as a part of itself


def addition_estimates(
    scales: tuple[float, float, float], zeros: tuple[int, int, int], bytes_of: str
) -> NDArray[np.float32]:
    """Return what bytes x and y are multiplied with, and what is added: units of the output, or zeros, never certain.

    `scales` and `zeros` are those of x, y and their sum. A byte at the common scale, below 2**28, is off by 1 from two
    roundings and by 2**-4 from its multiplier; so is their sum, by its multiplier, and by the first of its roundings.
    """
    s_x, s_y, s_out = scales
    steps = np.array([s_x / s_out, s_y / s_out, 0.0])
    steps[2] = zeros[2] + 0.5 - zeros[0] * steps[0] - zeros[1] * steps[1]
    units: NDArray[np.float64] = np.ldexp(steps, FRACTION_BITS)
    unit_of_sum = np.ldexp(2 * max(s_x, s_y) / s_out, FRACTION_BITS - ADDED_BITS)
    inner = abs(units[2]) + MARGIN + 255 * units[1]  # no less than any value before the last addition
    floats = HALF_DIGIT * (255 * (units[0] + units[1]) + abs(units[2]) + MARGIN + inner) + 0.5
    wrong = floats + 3.5 * unit_of_sum + 2.0**-6
    if bytes_of in BY_FLOATS or wrong > MARGIN or inner + 255 * units[0] > 2.0**30:
        return np.zeros(3, np.float32)
    units[2] += MARGIN
    return units.astype(np.float32)


@intrinsic
def estimate_sums(typing_context, arrays, x, y, to):  # type: ignore[no-untyped-def]
    """estimate_sums(arrays, x, y, to): add `STORED` neighbouring vectors of two maps; 1 where a byte is not certain.

    x, y: where the bytes begin in the arena; to: an `estimate.Bytes` of one line, whose first two `SCALES` have the
    factors of x and y, and the third has "above".
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pairs = zip(signature.args, arguments, strict=True)
        arrays, x, y, to = (simd.unpack(context, builder, *pair) for pair in pairs)
        rows = [builder.add(to.scales, builder.mul(to.scales_distance, simd.INDEX(row))) for row in range(3)]
        names = ("factor", "factor", "above")
        by_x, by_y, above = (
            load_row(builder, arrays, row, name, simd.VECTOR) for row, name in zip(rows, names, strict=True)
        )
        units = []
        for place in range(STORED):
            total = above
            for start, factor in ((y, by_y), (x, by_x)):
                value = _load_floats(builder, arrays, builder.add(start, simd.INDEX(place * LANES)))
                total = simd.fused_multiply_add(builder, value, factor, total)
            units.append(builder.fptosi(total, simd.INTEGERS))
        pointer = builder.gep(arrays.arena, [to.start], inbounds=True)
        integers.emit_store(builder, pointer, units, to.low, to.high)
        return builder.zext(is_any_doubtful(builder, units, SUM_WINDOW), simd.INDEX)

    return types.int64(arrays, types.int64, types.int64, to), emit


def _load_floats(builder: Any, arrays: Arrays, start: Any) -> Any:
    pointer = builder.bitcast(builder.gep(arrays.arena, [start], inbounds=True), integers.BYTES.as_pointer())
    return builder.sitofp(builder.zext(builder.load(pointer, align=1), simd.INTEGERS), simd.VECTOR)
