"""Pillow's resampling of bytes, and the tables that make floats, or a network's own bytes, of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.reference import RESAMPLING_BITS
from minimobile_kernels.simd import unpack

_HALF = 1 << (RESAMPLING_BITS - 1)
_ROWS = 4
_BYTES, _SUMS = (ir.VectorType(ir.IntType(bits), 4 * _ROWS) for bits in (8, 32))
_WORDS = ir.VectorType(ir.IntType(32), _ROWS)


def resample(
    x: Any, down_starts: Any, down_weights: Any, across_starts: Any, across_weights: Any,
    between: Any, sums: Any, out: Any, pixel: int, rows_first: int,
) -> None:  # fmt: skip
    """Resize a picture along both axes, every pass rounded and clipped to bytes: columns first, or rows.

    Defined by reference.resample_bytes along the second axis and then along the first, or the other way round.

    Shapes: x (h, w * pixel), down_starts (H), down_weights (H, taps), across_starts (W), across_weights (W, taps);
    between (h, W * pixel), or (H, w * pixel) with rows first; sums: as a row of what `down` makes; out (H, W * pixel).
    """
    if rows_first:
        _mix_rows(x, down_starts, down_weights, sums, between)
        _mix_columns(between, across_starts, across_weights, pixel, out)
    else:
        _mix_columns(x, across_starts, across_weights, pixel, between)
        _mix_rows(between, down_starts, down_weights, sums, out)


def look_up(x: Any, table: Any, out: Any, pixel: int, plane: int) -> None:
    """Put the table's value for each byte of a picture in its place, channel by channel.

    `out[c, j] = table[c, x[j * pixel + c * plane]]`: so both planes of channels and pixels of channels are read.

    Shapes: x: one-dimensional, table (C, 256), out (C, n).
    """
    for c in range(out.shape[0]):
        values, found = table[c], out[c]
        for j in range(out.shape[1]):
            found[j] = values[x[j * pixel + c * plane]]


def look_up_pixels(x: Any, table: Any, out: Any, pixel: int, plane: int) -> None:
    """Do what `look_up` does, pixel by pixel: `out[j, c] = table[c, x[j * pixel + c * plane]]`.

    Shapes: x: one-dimensional, table (C, 256), out (n, C).
    """
    if out.shape[1] == 3:  # for the compiler: three tables at once
        red, green, blue = table[0], table[1], table[2]
        for j in range(out.shape[0]):
            first = j * pixel
            out[j, 0], out[j, 1], out[j, 2] = red[x[first]], green[x[first + plane]], blue[x[first + 2 * plane]]
        return
    for j in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[j, c] = table[c, x[j * pixel + c * plane]]


@compiled
def _mix_rows(x: Any, starts: Any, weights: Any, sums: Any, out: Any) -> None:
    """Weigh the rows from starts[i] on for the row i of the result."""
    for i in range(out.shape[0]):
        sums[:] = _HALF
        for k in range(weights.shape[1]):
            weight, row = weights[i, k], x[starts[i] + k]
            for j in range(sums.shape[0]):
                sums[j] += np.int32(row[j]) * weight
        mixed = out[i]
        for j in range(sums.shape[0]):
            mixed[j] = _clip(sums[j])


@compiled
def _mix_columns(x: Any, starts: Any, weights: Any, pixel: int, out: Any) -> None:
    """Weigh the pixels from starts[j] on of every row for the column j of the result.

    Pixels of four bytes in `_ROWS` rows at a time: what a column's taps need is looked up once for all of them.
    """
    height = x.shape[0]
    if pixel == 4 and height >= _ROWS:
        for y in range(0, height, _ROWS):
            first = min(y, height - _ROWS)  # the last rows are computed again where they are no whole number of times
            _mix_pixels(x[first], x.shape[1], starts, weights, weights.shape[1], starts.shape[0], out[first])
        return
    for y in range(height):
        row, mixed = x[y], out[y]
        for j in range(starts.shape[0]):
            for c in range(pixel):
                total = np.int32(_HALF)
                for k in range(weights.shape[1]):
                    total = np.int32(total + row[(starts[j] + k) * pixel + c] * weights[j, k])
                mixed[j * pixel + c] = _clip(total)


@inlined
def _clip(total: int) -> Any:
    return np.uint8(min(max(total >> RESAMPLING_BITS, 0), 255))


@intrinsic
def _mix_pixels(typing_context, row, stride, starts, weights, taps, columns, out):  # type: ignore[no-untyped-def]
    """_mix_pixels(first of the rows, bytes of a row, starts (W), weights (W, taps), taps, W, first of the rows)."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        row, stride, starts, weights, taps, columns, out = (
            unpack(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )
        index = ir.IntType(64)
        pitch = builder.mul(columns, index(4))  # bytes of a row of the result
        reads, writes = ([builder.gep(place, [builder.mul(by, index(r))]) for r in range(_ROWS)]
                         for place, by in ((row, stride), (out, pitch)))  # fmt: skip
        sums = cgutils.alloca_once(builder, _SUMS)
        with cgutils.for_range(builder, columns) as column:
            begin = builder.mul(builder.load(builder.gep(starts, [column.index])), index(4))
            own = builder.gep(weights, [builder.mul(column.index, taps)])
            builder.store(_constant(_HALF), sums)
            with cgutils.for_range(builder, taps) as tap:
                place = builder.add(begin, builder.mul(tap.index, index(4)))
                pixels = builder.zext(_gather(builder, reads, place), _SUMS)
                product = builder.mul(pixels, _splat(builder, builder.load(builder.gep(own, [tap.index]))))
                builder.store(builder.add(builder.load(sums), product), sums)
            value = builder.ashr(builder.load(sums), _constant(RESAMPLING_BITS))
            for compare, limit in (("<", 0), (">", 255)):
                value = builder.select(builder.icmp_signed(compare, value, _constant(limit)), _constant(limit), value)
            _scatter(builder, builder.trunc(value, _BYTES), writes, builder.mul(column.index, index(4)))
        return context.get_dummy_value()

    return types.void(row, types.int64, starts, weights, types.int64, types.int64, out), emit


def _gather(builder: Any, rows: list[Any], place: Any) -> Any:
    """Emit a vector of the four bytes from `place` on of every row."""
    words = ir.Constant(_WORDS, ir.Undefined)
    for lane, row in enumerate(rows):
        word = builder.bitcast(builder.gep(row, [place]), _WORDS.element.as_pointer())
        words = builder.insert_element(words, builder.load(word, align=1), ir.IntType(32)(lane))
    return builder.bitcast(words, _BYTES)


def _scatter(builder: Any, pixels: Any, rows: list[Any], place: Any) -> None:
    """Emit what writes four bytes of a vector to `place` of every row."""
    words = builder.bitcast(pixels, _WORDS)
    for lane, row in enumerate(rows):
        word = builder.bitcast(builder.gep(row, [place]), _WORDS.element.as_pointer())
        builder.store(builder.extract_element(words, ir.IntType(32)(lane)), word, align=1)


def _constant(value: int) -> Any:
    return ir.Constant(_SUMS, [value] * (4 * _ROWS))


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_SUMS, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), _SUMS.count), [0] * _SUMS.count)
    return builder.shuffle_vector(single, undefined, lanes)
