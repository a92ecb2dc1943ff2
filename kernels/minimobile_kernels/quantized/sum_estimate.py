"""The sum of two maps of bytes by two products in float32, as `estimate` does it, and whether that was certain.

The definition brings both bytes to a common scale in whole numbers first, and rounds each twice on the way. What that
and every rounding here can move the result by, in units, is summed in `addition_estimates`; where it is more than
`MARGIN`, nothing is estimated. Truncated, and with `MARGIN` added, an estimate of t lies in (t - 1, t + 2 * MARGIN].
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.estimate import STORED, is_any_doubtful, load_row
from minimobile_kernels.quantized.step import Arrays

SUM_WINDOW = 16


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
