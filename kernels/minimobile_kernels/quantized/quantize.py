"""Numbers turned into bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import share
from minimobile_kernels.quantized.integers import call_intrinsic
from minimobile_kernels.quantized.reference import ONNX_RUNTIME
from minimobile_kernels.quantized.step import BYTES_OF, Arrays
from minimobile_kernels.simd import element_pointer, keep_apart

LARGEST = np.float32(2.0**30)
FIRST_TO_EVEN = BYTES_OF.index(ONNX_RUNTIME[0])  # from this entry of BYTES_OF on, halves go to even


@compiled
def quantize(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Turn the caller's image, the bytes of float32 (N, H, W, C), into a map. Defined by reference_maps.quantize.

    At `step.scale` are the bits of the scale.
    """
    first, last = share(step.batch * step.height * step.width, 1, part, parts)
    _quantize(step, arrays, first, last)


@compiled
def _quantize(step: Any, arrays: Arrays, first: int, last: int) -> None:
    keep_apart()
    image, arena = arrays.image, arrays.arena
    scale, channels, out, out_plane = _load_float(arrays.constants, step.scale), step.channels, step.out, step.out_plane
    zero, low, high, is_to_even = step.out_zero, step.low, step.high, step.bytes_of >= FIRST_TO_EVEN
    for pixel in range(first, last):
        for channel in range(channels):
            value = _load_float(image, (pixel * channels + channel) * 4) / scale
            value = min(max(value, -LARGEST), LARGEST)
            whole = np.int64(_round_to_even(value)) if is_to_even else np.int64(value)
            if not is_to_even and abs(value - np.float32(whole)) >= np.float32(0.5):  # halves away from zero
                whole += 1 if value > 0 else -1
            target = out + channel // LANES * out_plane + pixel * LANES + channel % LANES
            arena[target] = min(max(whole + zero, low), high)


@intrinsic
def _round_to_even(typing_context, value):  # type: ignore[no-untyped-def]
    """_round_to_even(value): the nearest whole number of a float32, halves to even."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return call_intrinsic(builder, "llvm.rint.f32", ir.FloatType(), *arguments)

    return types.float32(types.float32), emit


@intrinsic
def _load_float(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """_load_float(array, offset): the float32 whose bits begin at an element of an array of another type."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.load(builder.bitcast(pointer, ir.FloatType().as_pointer()), align=1)

    return types.float32(array, types.int64), emit
