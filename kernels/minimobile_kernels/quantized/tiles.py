"""Products of bytes in the matrix registers of AMX (Intel's manual, TDPBUSD), and the way of their sums to bytes.

A register, a tile, has 16 rows of 64 bytes. Two of them hold pixels, two weights, and four the sums of each pair.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels.amx import ROW_BYTES, ROWS
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import integers
from minimobile_kernels.quantized.constants import GROUP, SCALES_BYTES, VECTOR_BYTES
from minimobile_kernels.quantized.estimate import STORED, emit_bytes
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.step import PANEL_VECTORS

FINISHED = (ROWS, STORED, 1)  # pixels that are brought to bytes together
BLOCK_TILES = 2  # of pixels that are multiplied together
SUMS, PIXELS, WEIGHTS = 0, 4, 6  # where the numbers of each kind's registers begin
BYTE_POINTER = integers.BYTE.as_pointer()


def _call(builder: Any, name: str, *arguments: Any) -> None:
    """Emit an instruction on tiles: registers are plain numbers, addresses are cast."""
    emitted = []
    for argument in arguments:
        if isinstance(argument, int):
            emitted.append(integers.BYTE(argument))
        elif isinstance(argument.type, ir.PointerType):
            emitted.append(builder.bitcast(argument, BYTE_POINTER))
        else:
            emitted.append(argument)
    function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in emitted])
    builder.call(cgutils.get_or_insert_function(builder.module, function_type, f"llvm.x86.{name}"), emitted)


@intrinsic
def begin_tiles(typing_context, arena, place):  # type: ignore[no-untyped-def]
    """begin_tiles(arena, place): give all registers their full size.

    The sizes are written to the 64 bytes of the arena from `place` on, as LDTILECFG reads them: which layout they have,
    16 bits each for the bytes of a row, and from byte 48 on the rows.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = simd.element_pointer(builder, context, signature.args[0], *arguments)
        widths, rows = ROW_BYTES * 0x0001000100010001, ROWS * 0x0101010101010101
        longs = builder.bitcast(pointer, simd.INDEX.as_pointer())
        for index, number in enumerate((1, 0, widths, widths, 0, 0, rows, 0)):
            builder.store(simd.INDEX(number), builder.gep(longs, [simd.INDEX(index)]), align=1)
        _call(builder, "ldtilecfg", pointer)
        return context.get_dummy_value()

    return types.void(arena, types.int64), emit


@intrinsic
def end_tiles(typing_context):  # type: ignore[no-untyped-def]
    """end_tiles(): leave the registers empty, so that the system need not keep them for this thread."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def gather_pixels(typing_context, arena, x, plane, planes, to, terms, pixels):  # type: ignore[no-untyped-def]
    """gather_pixels(arena, x, plane, planes, to, terms, pixels): bring up to four planes of pixels together.

    The 16 bytes of each neighbouring pixel lie from `x` on, those of the next plane `plane` bytes on; a pixel's 64 go
    to `to`, the next one's `terms` bytes on. Of planes beyond `planes` the bytes are anything.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        (_, x, plane, planes, to, terms, pixels) = arguments
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data

        def emit_planes(choice: tuple[int]) -> None:
            with cgutils.for_range(builder, pixels) as loop:
                source = builder.add(x, builder.mul(loop.index, simd.INDEX(LANES)))
                target = builder.add(to, builder.mul(loop.index, terms))
                for number in range(choice[0]):
                    start = builder.add(source, builder.mul(plane, simd.INDEX(number)))
                    pointer = builder.bitcast(builder.gep(data, [start]), integers.BYTES.as_pointer())
                    place = builder.gep(data, [builder.add(target, simd.INDEX(number * LANES))])
                    vector = builder.load(pointer, align=1)
                    builder.store(vector, builder.bitcast(place, integers.BYTES.as_pointer()), align=1)

        simd.emit_choice(builder, [planes], [(4,), (3,), (2,), (1,)], emit_planes)
        return context.get_dummy_value()

    return types.void(arena, *[types.int64] * 6), emit


@intrinsic
def multiply_tiles(typing_context, arrays, x, terms, weight, vectors, scales):  # type: ignore[no-untyped-def]
    """multiply_tiles(arrays, x, terms, weight, vectors, scales): the sums of two tiles of pixels, in registers.

    sum[v,p,o] = bias[v,o] + sum over t of x[p,t] * weight[t,v,o], exactly. Shapes: x: in the arena, unsigned bytes
    [BLOCK_TILES * ROWS][terms], terms a multiple of ROW_BYTES; weight: among the constants, signed bytes [terms /
    GROUP][vectors][LANES][GROUP]; scales: the first vector's `SCALES`. `store_tile` writes sum[v,ROWS*h:ROWS*(h+1)],
    the tile v * BLOCK_TILES + h.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        arrays = simd.unpack(context, builder, signature.args[0], arguments[0])
        x, terms, weight, vectors, scales = arguments[1:]

        def emit_vectors(choice: tuple[int]) -> None:
            _emit_products(builder, choice[0], arrays, (x, terms, weight, scales))

        simd.emit_choice(builder, [vectors], [(PANEL_VECTORS,), (1,)], emit_vectors)
        return context.get_dummy_value()

    return types.void(arrays, *[types.int64] * 5), emit


def _emit_products(builder: Any, vectors: int, arrays: Arrays, places: tuple[Any, ...]) -> None:
    index = simd.INDEX
    x, terms, weight, scales = places
    for tile in range(vectors * BLOCK_TILES):
        bias = builder.gep(arrays.constants, [builder.add(scales, index(tile // BLOCK_TILES * SCALES_BYTES))])
        _call(builder, "tileloadd64", SUMS + tile, bias, index(0))  # the same row for every pixel
    distance = index(vectors * LANES * GROUP)
    with cgutils.for_range(builder, builder.udiv(terms, index(ROW_BYTES))) as loop:
        first = builder.add(x, builder.mul(loop.index, index(ROW_BYTES)))
        start = builder.add(weight, builder.mul(loop.index, builder.mul(distance, index(ROWS))))
        for half in range(BLOCK_TILES):
            place = builder.add(first, builder.mul(terms, index(half * ROWS)))
            _call(builder, "tileloadd64", PIXELS + half, builder.gep(arrays.arena, [place]), terms)
        for vector in range(vectors):
            place = builder.add(start, index(vector * LANES * GROUP))
            _call(builder, "tileloadd64", WEIGHTS + vector, builder.gep(arrays.constants, [place]), distance)
            for half in range(BLOCK_TILES):
                _call(builder, "tdpbusd", SUMS + vector * BLOCK_TILES + half, PIXELS + half, WEIGHTS + vector)


@intrinsic
def store_tile(typing_context, arena, sums, tile):  # type: ignore[no-untyped-def]
    """store_tile(arena, sums, tile): write the sums of a tile of `multiply_tiles`, int32 [ROWS][LANES]."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = simd.element_pointer(builder, context, signature.args[0], *arguments[:2])

        def emit_tile(choice: tuple[int]) -> None:
            _call(builder, "tilestored64", SUMS + choice[0], pointer, simd.INDEX(VECTOR_BYTES))

        tiles = [(number,) for number in range(PANEL_VECTORS * BLOCK_TILES)]
        simd.emit_choice(builder, [arguments[2]], tiles, emit_tile)
        return context.get_dummy_value()

    return types.void(arena, types.int64, types.int64), emit


@intrinsic
def add_groups(typing_context, arrays, sums, x, panel, first, distance):  # type: ignore[no-untyped-def]
    """add_groups(arrays, sums, x, panel, first, distance): add what groups of a panel, from `first` on, give a pixel.

    Its sums lie in the arena from `sums` on, [LANES]; `x` and `panel` are as `dot_tile` has them, the weights those of
    one vector, `distance` bytes apart.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pairs = zip(signature.args, arguments, strict=True)
        arrays, sums, x, panel, first, distance = (simd.unpack(context, builder, *pair) for pair in pairs)
        place = _at(builder, arrays.arena, sums, simd.INTEGERS)
        total = cgutils.alloca_once_value(builder, builder.load(place, align=4))
        taps = _at(builder, arrays.constants, panel.taps, integers.LONG)
        with cgutils.for_range(builder, builder.sub(panel.groups, first)) as loop:
            group = builder.add(first, loop.index)
            tap = builder.load(builder.gep(taps, [group]), align=8)
            start = builder.add(panel.weight, builder.mul(group, distance))
            weights = integers.load_weights(builder, _at(builder, arrays.constants, start, integers.BYTE))
            values = integers.load_group(builder, _at(builder, arrays.arena, builder.add(x, tap), integers.BYTE))
            builder.store(integers.add_products(builder, builder.load(total), values, weights), total)
        builder.store(builder.load(total), place, align=4)
        return context.get_dummy_value()

    return types.void(arrays, sums, x, panel, first, distance), emit


@intrinsic
def finish_sums(typing_context, arrays, pixels, sums, to, room):  # type: ignore[no-untyped-def]
    """finish_sums(arrays, pixels, sums, to, room): bring the sums of one of `FINISHED` pixels of a vector to bytes.

    They lie in the arena from `sums` on, int32 [pixels][LANES]. Where the bytes go `to` says, an `estimate.Bytes` of
    one line; what is returned, and what `room` is for, `estimate.emit_bytes`.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pairs = zip(signature.args, arguments, strict=True)
        arrays, pixels, sums, to, room = (simd.unpack(context, builder, *pair) for pair in pairs)
        doubts = cgutils.alloca_once(builder, simd.INDEX)

        def emit_pixels(choice: tuple[int]) -> None:
            places = [builder.add(sums, simd.INDEX(pixel * VECTOR_BYTES)) for pixel in range(choice[0])]
            totals = [builder.load(_at(builder, arrays.arena, place, simd.INTEGERS), align=4) for place in places]
            builder.store(emit_bytes(builder, arrays, [totals], to, room), doubts)

        simd.emit_choice(builder, [pixels], [(count,) for count in FINISHED], emit_pixels)
        return builder.load(doubts)

    return types.int64(arrays, pixels, sums, to, room), emit


def _at(builder: Any, array: Any, place: Any, kind: Any) -> Any:
    """Emit the address of values of some kind, from a byte of an array on."""
    return builder.bitcast(builder.gep(array, [place], inbounds=True), kind.as_pointer())
