"""From sums of int32 in memory to bytes at the output's scale, exactly: for what `estimate` leaves."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.constants import VECTOR_BYTES
from minimobile_kernels.quantized.estimate import STORED, Bytes
from minimobile_kernels.quantized.integers import load_integers, store_bytes
from minimobile_kernels.quantized.scaling import scale_as_float, scale_once_rounded, scale_twice_rounded
from minimobile_kernels.quantized.step import BYTES_OF, Arrays
from minimobile_kernels.simd import add, broadcast, clamp, keep_apart

LITERT, SINGLE_ROUNDING = BYTES_OF.index("litert"), BYTES_OF.index("litert-single-rounding")


@compiled
def load_scales(constants: Any, table: int) -> Any:
    """Return the vectors "multiplier", "left", "right" and "scale" of one plane's `SCALES`."""
    return (
        load_integers(constants, table + VECTOR_BYTES),
        load_integers(constants, table + 2 * VECTOR_BYTES),
        load_integers(constants, table + 3 * VECTOR_BYTES),
        load_integers(constants, table + 4 * VECTOR_BYTES),
    )


@compiled
def requantize(step: Any, arrays: Arrays, sums: int, pixels: int, doubts: int, to: Bytes) -> None:
    """Bring the sums of those pixels of a tile to bytes for which `doubts` has a bit, as from `estimate.emit_bytes`.

    Sums of int32, bias included, lie from `sums` on, [lines][pixels][LANES]. Defined by reference.requantize, with the
    zero point and the clamp after it.
    """
    keep_apart()
    bytes_of, arena, out_zero = step.bytes_of, arrays.arena, broadcast(step.out_zero)
    line, first = 0, 0
    while doubts:
        if doubts & 1:
            multiplier, left, right, scale = load_scales(arrays.constants, to.scales + line * to.scales_distance)
            for pixel in range(first, min(first + STORED, pixels)):
                total = load_integers(arena, sums + (line * pixels + pixel) * VECTOR_BYTES)
                if bytes_of == LITERT:
                    result = scale_twice_rounded(total, multiplier, left, right)
                elif bytes_of == SINGLE_ROUNDING:
                    result = scale_once_rounded(total, multiplier, left, right)
                else:
                    result = scale_as_float(total, scale)
                target = to.start + line * to.distance + pixel * LANES
                store_bytes(arena, target, clamp(add(result, out_zero), to.low, to.high))
        doubts >>= 1
        first += STORED
        if first >= pixels:
            line, first = line + 1, 0
