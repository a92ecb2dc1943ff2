"""Pillow's resampling of bytes, and the tables that make floats, or a network's own bytes, of the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.constants import FRACTION_BITS, GROUP
from minimobile_kernels.quantized.integers import BYTE, LONG, PRODUCTS, WORD, load_bytes, load_word, times
from minimobile_kernels.reference import RESAMPLING_BITS
from minimobile_kernels.simd import INTEGERS, add, broadcast, clamp_vector, element_pointer, splat, unpack

_HALF = 1 << (RESAMPLING_BITS - 1)
_PIXEL = 4  # bytes, of which vectors are filled: Pillow's RGB
_CHANNELS = 3  # of them that mean something
_ROWS = LANES // _PIXEL  # of as many pixels
_COLUMNS = 4  # of a tile
_DIGITS = 1 if PRODUCTS == "multiply" else 3  # into which a weight is taken apart where bytes are multiplied
_VECTORS = 4  # of bytes that rows are weighed in


def resample(
    x: Any, down_starts: Any, down_weights: Any, across_starts: Any, across_weights: Any,
    between: Any, packed: Any, out: Any, pixel: int, channels: int, rows_first: int,
) -> None:  # fmt: skip
    """Resize a picture along both axes, every pass rounded and clipped to bytes: columns first, or rows.

    Of the `pixel` bytes of a pixel the first `channels` are kept: all, or 3 of 4.

    Defined by reference.resample_bytes along the second axis and then along the first, or the other way round. Weights
    are less than 2**23 - 2**16 in magnitude, which is almost 2.

    Shapes: x (h, w * pixel), down_starts (H), down_weights (H, taps), across_starts (W), across_weights (W, taps);
    between (h, W * channels), or (H, w * pixel) with rows first; packed (W, 1 + taps across, up to a whole number of
    fours), of whatever it holds; out (H, W * channels).
    """
    if rows_first:
        _mix_rows(x, down_starts, down_weights, between)
        _mix_columns(between, across_starts, across_weights, pixel, channels, packed, out)
    else:
        _mix_columns(x, across_starts, across_weights, pixel, channels, packed, between)
        _mix_rows(between, down_starts, down_weights, out)


def look_up(x: Any, table: Any, out: Any) -> None:
    """Put the table's value for each byte of a picture in its place, channel by channel: `table[c, x[j, c]]`.

    Three channels are read and written four pixels at a time: 0.82 of the time that single floats take. (To write
    bytes so, as words, takes as long as one by one.)

    Shapes: x (n, C), table (C, 256), out (C, n).
    """
    whole = out.shape[1] // 4 * 4 if x.shape[1] == _CHANNELS else 0
    if whole > 0:
        red, green, blue = table[0], table[1], table[2]
        first, second, third = out[0], out[1], out[2]
        for j in range(0, whole, 4):
            a, b, c = _load_four(x, j)
            _store_four(first, j, red[a & 255], red[a >> 24], red[b >> 16 & 255], red[c >> 8 & 255])
            _store_four(second, j, green[a >> 8 & 255], green[b & 255], green[b >> 24], green[c >> 16 & 255])
            _store_four(third, j, blue[a >> 16 & 255], blue[b >> 8 & 255], blue[c & 255], blue[c >> 24])
    for c in range(out.shape[0]):
        values, found = table[c], out[c]
        for j in range(whole, out.shape[1]):
            found[j] = values[x[j, c]]


def look_up_pixels(x: Any, table: Any, out: Any) -> None:
    """Do what `look_up` does, pixel by pixel.

    Shapes: x (n, C), table (C, 256), out (n, C).
    """
    whole = x.shape[0] - 1 if x.shape[1] == _CHANNELS else 0
    if whole > 0:
        red, green, blue = table[0], table[1], table[2]
        for j in range(whole):
            word = load_word(x, j * _CHANNELS)
            out[j, 0], out[j, 1], out[j, 2] = red[word & 255], green[word >> 8 & 255], blue[word >> 16 & 255]
    for j in range(whole, out.shape[0]):
        for c in range(out.shape[1]):
            out[j, c] = table[c, x[j, c]]


@compiled
def _load_four(x: Any, pixel: int) -> tuple[int, int, int]:
    """Return the twelve bytes of four pixels, of which the second begins with the fourth, as three words from 0 on."""
    place, word = pixel * _CHANNELS, (1 << 32) - 1
    return load_word(x, place) & word, load_word(x, place + 4) & word, load_word(x, place + 8) & word


@intrinsic
def _store_four(typing_context, array, place, a, b, c, d):  # type: ignore[no-untyped-def]
    """_store_four(array, place, a, b, c, d): write four numbers side by side."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = ir.Constant(ir.VectorType(arguments[2].type, 4), ir.Undefined)
        for lane, number in enumerate(arguments[2:]):
            vector = builder.insert_element(vector, number, WORD(lane))
        pointer = element_pointer(builder, context, signature.args[0], *arguments[:2])
        builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, a, b, c, d), emit


@compiled
def _mix_rows(x: Any, starts: Any, weights: Any, out: Any) -> None:
    """Weigh the rows from starts[i] on for the row i of the result."""
    line, block = out.shape[1], _VECTORS * LANES
    if line < block:
        for i in range(out.shape[0]):
            for j in range(line):
                total = np.int32(_HALF)
                for k in range(weights.shape[1]):
                    total = np.int32(total + x[starts[i] + k, j] * weights[i, k])
                out[i, j] = _clip(total)
        return
    for i in range(out.shape[0]):
        for begin in range(0, line, block):
            first = min(begin, line - block)  # the last block is computed in part again
            a = b = c = d = broadcast(np.int64(_HALF))
            for k in range(weights.shape[1]):
                weight, place = broadcast(np.int64(weights[i, k])), (starts[i] + k) * line + first
                a = add(a, times(load_bytes(x, place), weight))
                b = add(b, times(load_bytes(x, place + LANES), weight))
                c = add(c, times(load_bytes(x, place + 2 * LANES), weight))
                d = add(d, times(load_bytes(x, place + 3 * LANES), weight))
            _store_sums(out, i * line + first, a, b, c, d)


@compiled
def _mix_columns(x: Any, starts: Any, weights: Any, pixel: int, channels: int, packed: Any, out: Any) -> None:
    """Weigh the pixels from starts[j] on of every row for the column j of the result."""
    height, columns, width = x.shape[0], starts.shape[0], x.shape[1] // pixel
    reach = (weights.shape[1] + GROUP - 1) // GROUP * GROUP
    if pixel == _PIXEL and height >= _ROWS and columns >= _COLUMNS and width >= reach:
        _pack_taps(starts, weights, width - reach, packed)
        for y in range(0, height, _ROWS):
            first = min(y, height - _ROWS)  # the last rows are computed in part again
            _mix_pixels(x[first], x.shape[1], packed, reach // GROUP, columns, out[first])
        return
    for y in range(height):
        row, mixed = x[y], out[y]
        for j in range(columns):
            for c in range(channels):
                total = np.int32(_HALF)
                for k in range(weights.shape[1]):
                    total = np.int32(total + row[(starts[j] + k) * pixel + c] * weights[j, k])
                mixed[j * channels + c] = _clip(total)


@compiled
def _pack_taps(starts: Any, weights: Any, last: int, packed: Any) -> None:
    """Write for every column its first pixel, which is `last` at most, and the weights of the pixels from there on.

    Where bytes are multiplied, those of four pixels are three words: their lowest bytes, signed, and what is carried.
    """
    for j in range(starts.shape[0]):
        start, own = min(starts[j], last), packed[j]
        own[:] = 0
        own[0] = start
        for k in range(weights.shape[1]):
            tap, weight = starts[j] - start + k, np.int64(weights[j, k])
            if _DIGITS == 1:
                own[1 + tap] = weight
                continue
            group, shift = 1 + tap // GROUP * GROUP, tap % GROUP * 8
            for digit in range(_DIGITS):
                own[group + digit] |= np.int32((weight & 255) << shift)
                weight = (weight + 128) >> 8


@compiled
def _clip(total: int) -> Any:
    return np.uint8(min(max(total >> RESAMPLING_BITS, 0), 255))


@intrinsic
def _store_sums(typing_context, out, place, a, b, c, d):  # type: ignore[no-untyped-def]
    """_store_sums(out, place, a, b, c, d): write four vectors of sums side by side, rounded and clipped to bytes."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], *arguments[:2])
        shift = integers.constant(RESAMPLING_BITS - FRACTION_BITS)
        vectors = [builder.ashr(total, shift) for total in arguments[2:]]
        integers.emit_store(builder, pointer, vectors, LONG(0), LONG(255))
        return context.get_dummy_value()

    return types.void(out, types.int64, a, b, c, d), emit


@intrinsic
def _mix_pixels(typing_context, row, stride, packed, groups, columns, out):  # type: ignore[no-untyped-def]
    """_mix_pixels(row, stride, packed, groups, columns, out): weigh pixels of this row and those after it.

    The rows of x and of out lie `stride` bytes and `columns` pixels apart, of which `out` has three bytes each;
    `packed` is what `_pack_taps` writes.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        row, stride, packed, groups, columns, out = (
            unpack(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
        )
        reads = _step(builder, row, stride, _ROWS)
        length = builder.add(builder.mul(groups, LONG(GROUP)), LONG(1))
        sums = [[cgutils.alloca_once(builder, INTEGERS) for _ in range(_DIGITS)] for _ in range(_COLUMNS)]
        blocks = builder.udiv(builder.add(columns, LONG(_COLUMNS - 1)), LONG(_COLUMNS))
        with cgutils.for_range(builder, blocks) as block:
            last, begin = builder.sub(columns, LONG(_COLUMNS)), builder.mul(block.index, LONG(_COLUMNS))
            first = builder.select(builder.icmp_signed("<", begin, last), begin, last)
            own = _step(builder, builder.gep(packed, [builder.mul(first, length)]), length, _COLUMNS)
            places = [builder.mul(builder.zext(builder.load(taps), LONG), LONG(_PIXEL)) for taps in own]
            for totals in sums:
                for digit, total in enumerate(totals):
                    builder.store(integers.constant(0 if digit else _HALF), total)
            with cgutils.for_range(builder, groups) as group:
                for place, taps, totals in zip(places, own, sums, strict=True):
                    offset = builder.mul(group.index, LONG(GROUP))
                    pixels = _gather(builder, reads, builder.add(place, builder.mul(offset, LONG(_PIXEL))))
                    words = builder.gep(taps, [builder.add(offset, LONG(1))])
                    for digit, total in enumerate(totals):
                        weights = _load_weights(builder, words, digit)
                        mixed = integers.add_products(builder, builder.load(total), pixels, weights)
                        builder.store(mixed, total)
            writes = _step(builder, builder.gep(out, [builder.mul(first, LONG(_CHANNELS))]),
                           builder.mul(columns, LONG(_CHANNELS)), _ROWS)  # fmt: skip
            _scatter(builder, [_join_digits(builder, totals) for totals in sums], writes)
        return context.get_dummy_value()

    return types.void(row, types.int64, packed, types.int64, types.int64, out), emit


def _step(builder: Any, pointer: Any, distance: Any, count: int) -> list[Any]:
    """Emit `count` addresses that are so far apart."""
    return [builder.gep(pointer, [builder.mul(distance, LONG(index))]) for index in range(count)]


def _gather(builder: Any, rows: Sequence[Any], place: Any) -> list[Any]:
    """Emit what four neighbouring pixels of every row are multiplied in: a lane for each row and channel."""
    count = GROUP * _PIXEL
    quads = [_load_quad(builder, builder.gep(row, [place])) for row in rows]
    while len(quads) > 1:
        quads = [_shuffle(builder, *pair, range(2 * pair[0].type.count))
                 for pair in zip(quads[::2], quads[1::2], strict=True)]  # fmt: skip
    order = [row * count + tap * _PIXEL + channel
             for row in range(_ROWS) for channel in range(_PIXEL) for tap in range(GROUP)]  # fmt: skip
    turned = _shuffle(builder, quads[0], quads[0], order)
    return integers.part_groups(builder, builder.bitcast(turned, INTEGERS))


def _load_quad(builder: Any, pointer: Any) -> Any:
    quad = ir.VectorType(BYTE, GROUP * _PIXEL)
    return builder.load(builder.bitcast(pointer, quad.as_pointer()), align=1)


def _shuffle(builder: Any, first: Any, second: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(WORD, len(order)), list(order)))


def _load_weights(builder: Any, words: Any, digit: int) -> list[Any]:
    """Emit a digit of the weights of four pixels, or the weights."""
    places = range(GROUP) if _DIGITS == 1 else [digit]
    found = [splat(builder, builder.load(builder.gep(words, [LONG(place)])), INTEGERS) for place in places]
    return found if _DIGITS == 1 else integers.part_weights(builder, found[0])


def _join_digits(builder: Any, totals: Sequence[Any]) -> Any:
    """Emit a sum, rounded, of those of its digits."""
    whole = builder.load(totals[0])
    for digit, total in enumerate(totals[1:], 1):
        whole = builder.add(whole, builder.shl(builder.load(total), integers.constant(8 * digit)))
    return builder.ashr(whole, integers.constant(RESAMPLING_BITS))


def _scatter(builder: Any, columns: Sequence[Any], rows: Sequence[Any]) -> None:
    """Emit what clips columns of pixels to bytes, and writes them side by side to every row."""
    if PRODUCTS == "multiply":
        for index, column in enumerate(columns):
            clipped = clamp_vector(builder, column, integers.constant(0), integers.constant(255))
            narrow = builder.trunc(clipped, integers.BYTES)
            for lane, row in enumerate(rows):
                _store_shuffled(builder, narrow, [lane * _PIXEL + c for c in range(_CHANNELS)],
                                builder.gep(row, [LONG(index * _CHANNELS)]))  # fmt: skip
        return
    packed = builder.bitcast(_pack_columns(builder, columns), ir.VectorType(BYTE, 4 * LANES))
    for lane, row in enumerate(rows):
        order = [(lane * 4 + column) * _PIXEL + c for column in range(4) for c in range(_CHANNELS)]
        _store_shuffled(builder, packed, order, row)


def _store_shuffled(builder: Any, values: Any, order: Sequence[int], pointer: Any) -> None:
    """Emit a store of some bytes of a vector, side by side."""
    chosen = _shuffle(builder, values, values, order)
    builder.store(chosen, builder.bitcast(pointer, chosen.type.as_pointer()), align=1)


def _pack_columns(builder: Any, columns: Sequence[Any]) -> Any:
    """Emit four vectors as bytes, clipped: within every 128 bits they come one after the other, which makes rows."""
    infix, suffix = ("avx512", ".512") if LANES == 16 else ("avx2", "")
    halves = [
        integers.call_intrinsic(builder, f"llvm.x86.{infix}.packusdw{suffix}", integers.HALVES, *pair)
        for pair in (columns[:2], columns[2:])
    ]
    name, kind = f"llvm.x86.{infix}.packuswb{suffix}", ir.VectorType(BYTE, 4 * LANES)
    return integers.call_intrinsic(builder, name, kind, *halves)
