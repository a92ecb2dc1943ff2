"""The sum of two maps of bytes."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.quantized.constants import SCALES_BYTES
from minimobile_kernels.quantized.estimate import STORED, Bytes
from minimobile_kernels.quantized.integers import load_bytes, store_bytes, times
from minimobile_kernels.quantized.requantize import LITERT, SINGLE_ROUNDING, load_scales
from minimobile_kernels.quantized.scaling import add_as_floats, scale_once_rounded, scale_twice_rounded, shift_rounded
from minimobile_kernels.quantized.step import BYTES_OF, Arrays
from minimobile_kernels.quantized.sum_estimate import estimate_sums
from minimobile_kernels.simd import add as add_vectors
from minimobile_kernels.simd import broadcast, clamp, keep_apart

XNNPACK = BYTES_OF.index("xnnpack")  # from this entry on, nothing is estimated


@compiled
def add(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Add two maps of bytes. Defined by reference.add.

    Shapes: x, y, out: maps of one shape; at `step.scales` three rows of `SCALES`, of x, y and the sum. For XNNPACK's
    bytes the multipliers of x and y are those of reference.whole_factors, and the shift is the sum's; for those of ONNX
    Runtime the rows "scale" are reference.float_factors, and the zero points all are reference.written_zero.
    """
    vectors = ceil_div(step.channels, LANES) * step.batch * step.height * step.width
    first, last = share(vectors, 1, part, parts)
    _add(step, arrays, first, last)


@compiled
def _add(step: Any, arrays: Arrays, first: int, last: int) -> None:
    keep_apart()
    low, high = step.low, step.high
    start = first
    while start < last:
        count = min(STORED, last - start)
        if count == STORED and step.bytes_of < XNNPACK:
            to = Bytes(step.out + start * LANES, 0, step.scales, SCALES_BYTES, low, high, 1)
            if not estimate_sums(arrays, step.x + start * LANES, step.y + start * LANES, to):
                start += STORED
                continue
        _add_exactly(step, arrays, start, start + count)
        start += count


@compiled
def _add_exactly(step: Any, arrays: Arrays, first: int, last: int) -> None:
    keep_apart()
    arena, scales = arrays.arena, arrays.constants
    bytes_of = step.bytes_of
    x_by, x_left, x_right, x_scale = load_scales(scales, step.scales)
    y_by, y_left, y_right, y_scale = load_scales(scales, step.scales + SCALES_BYTES)
    out_by, out_left, out_right, out_scale = load_scales(scales, step.scales + 2 * SCALES_BYTES)
    x_zero, y_zero, out_zero = broadcast(-step.x_zero), broadcast(-step.y_zero), broadcast(step.out_zero)
    low, high = step.low, step.high
    for vector in range(first, last):
        x = add_vectors(load_bytes(arena, step.x + vector * LANES), x_zero)
        y = add_vectors(load_bytes(arena, step.y + vector * LANES), y_zero)
        if bytes_of == LITERT:
            total = add_vectors(
                scale_twice_rounded(x, x_by, x_left, x_right), scale_twice_rounded(y, y_by, y_left, y_right)
            )
            result = scale_twice_rounded(total, out_by, out_left, out_right)
        elif bytes_of == SINGLE_ROUNDING:
            total = add_vectors(
                scale_once_rounded(x, x_by, x_left, x_right), scale_once_rounded(y, y_by, y_left, y_right)
            )
            result = scale_once_rounded(total, out_by, out_left, out_right)
        elif bytes_of == XNNPACK:
            result = shift_rounded(add_vectors(times(x, x_by), times(y, y_by)), out_right)
        else:
            result = add_as_floats(x, y, x_scale, y_scale, out_scale)
        store_bytes(arena, step.out + vector * LANES, clamp(add_vectors(result, out_zero), low, high))
