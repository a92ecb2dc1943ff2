"""Pillow's resampling of bytes along one axis, and the table that makes floats of the bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels._jit import inlined
from minimobile_kernels.reference import RESAMPLING_BITS
from minimobile_kernels.simd import unpack

_HALF = 1 << (RESAMPLING_BITS - 1)
_FOUR_BYTES, _SUMS = (ir.VectorType(ir.IntType(bits), 4) for bits in (8, 32))


def mix_rows(x: Any, starts: Any, weights: Any, sums: Any, out: Any) -> None:
    """Weigh the rows from starts[i] on for the row i of the result, round, and clip to bytes.

    Defined by reference.resample_bytes.

    Shapes: x (h, bytes of a row), starts (H), weights (H, taps), sums (bytes of a row), out (H, bytes of a row).
    """
    for i in range(out.shape[0]):
        sums[:] = _HALF
        for k in range(weights.shape[1]):
            weight, row = weights[i, k], x[starts[i] + k]
            for j in range(sums.shape[0]):
                sums[j] += np.int32(row[j]) * weight
        mixed = out[i]
        for j in range(sums.shape[0]):
            mixed[j] = _clip(sums[j])


def mix_columns(x: Any, starts: Any, weights: Any, out: Any) -> None:
    """Weigh the pixels from starts[j] on of every row for the column j of the result, round, and clip to bytes.

    Defined by reference.resample_bytes. Pixels of four bytes are a vector each.

    Shapes: x (h, w, C), starts (W), weights (W, taps), out (h, W, C).
    """
    for y in range(x.shape[0]):
        row, mixed = x[y], out[y]
        if x.shape[2] == 4:
            for j in range(out.shape[1]):
                _mix_four(row, starts[j], weights, j, weights.shape[1], mixed)
        else:
            for j in range(out.shape[1]):
                for c in range(x.shape[2]):
                    total = np.int32(_HALF)
                    for k in range(weights.shape[1]):
                        total = np.int32(total + row[starts[j] + k, c] * weights[j, k])
                    mixed[j, c] = _clip(total)


def look_up(x: Any, table: Any, out: Any) -> None:
    """Put the table's value for each byte in the byte's place, channel by channel: `table[channel, x[channel]]`.

    Shapes: x (C, n), table (C, 256), out (C, n).
    """
    for c in range(out.shape[0]):
        values, row, found = table[c], x[c], out[c]
        for j in range(out.shape[1]):
            found[j] = values[row[j]]


@inlined
def _clip(total: int) -> Any:
    return np.uint8(min(max(total >> RESAMPLING_BITS, 0), 255))


@intrinsic
def _mix_four(typing_context, row, start, weights, j, taps, out):  # type: ignore[no-untyped-def]
    """_mix_four(row (w, 4), start, weights (W, taps), j, taps, out (W, 4)): compute the pixel j of a row."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        row, start, weights, j, taps, out = (
            unpack(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )
        pixels, mixed = (builder.bitcast(place, _FOUR_BYTES.as_pointer()) for place in (row, out))
        pixels = builder.gep(pixels, [start])
        weights = builder.gep(weights, [builder.mul(j, taps)])
        sums = cgutils.alloca_once_value(builder, _constant(_HALF))
        with cgutils.for_range(builder, taps) as loop:
            pixel = builder.zext(builder.load(builder.gep(pixels, [loop.index]), align=1), _SUMS)
            product = builder.mul(pixel, _splat(builder, builder.load(builder.gep(weights, [loop.index]))))
            builder.store(builder.add(builder.load(sums), product), sums)
        value = builder.ashr(builder.load(sums), _constant(RESAMPLING_BITS))
        for compare, limit in (("<", 0), (">", 255)):
            value = builder.select(builder.icmp_signed(compare, value, _constant(limit)), _constant(limit), value)
        builder.store(builder.trunc(value, _FOUR_BYTES), builder.gep(mixed, [j]), align=1)
        return context.get_dummy_value()

    return types.void(row, types.int64, weights, types.int64, types.int64, out), emit


def _constant(value: int) -> Any:
    return ir.Constant(_SUMS, [value] * 4)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_SUMS, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(_SUMS, [0] * 4))
