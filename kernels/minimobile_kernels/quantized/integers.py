"""Vectors of int32 for quantised networks: sums of products of bytes, and bytes read and written.

Every way of multiplying gives the same sums, for they are exact; which one there is follows from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels.host import LANES, host
from minimobile_kernels.quantized.constants import FRACTION_BITS, GROUP
from minimobile_kernels.simd import INTEGERS, clamp_vector, element_pointer, integers_type, splat

BYTE = ir.IntType(8)
WORD = ir.IntType(32)
LONG = ir.IntType(64)
HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)
BYTES = ir.VectorType(BYTE, LANES)

_VBMI_NAMES = ("icelake", "tigerlake", "rapids", "znver4", "znver5")
_VNNI_NAMES = ("cascadelake", "cooperlake", *_VBMI_NAMES)


def host_products(cpu_name: str | None, features: Sequence[str], lanes: int) -> str:
    """Return how a CPU with vectors of `lanes` int32 multiplies bytes: "vpdpbusd", "pmaddwd" or "multiply".

    `cpu_name` and `features` are as for `host.host_vectors`.
    """
    if cpu_name:
        has_vnni = lanes == 16 and any(name in cpu_name for name in _VNNI_NAMES)
        has_pairs = lanes >= 8
    else:
        has_vnni = ("avx512vnni" if lanes == 16 else "avxvnni") in features
        has_pairs = ("avx512bw" if lanes == 16 else "avx2") in features
    if has_vnni and lanes >= 8:
        return "vpdpbusd"
    return "pmaddwd" if has_pairs and lanes >= 8 else "multiply"


def host_shuffles(cpu_name: str | None, features: Sequence[str], lanes: int) -> bool:
    """Tell whether a CPU brings the bytes of two vectors of 64 into any order at once; arguments as above."""
    has_vbmi = any(name in cpu_name for name in _VBMI_NAMES) if cpu_name else "avx512vbmi" in features
    return lanes == 16 and has_vbmi


PRODUCTS = host_products(*host()[:2], LANES)
SHUFFLES_BYTES = host_shuffles(*host()[:2], LANES)


def constant(value: int) -> Any:
    """Return an int32 in every lane."""
    return ir.Constant(INTEGERS, [value] * LANES)


def load_group(builder: Any, pointer: Any) -> list[Any]:
    """Emit what four neighbouring unsigned bytes, repeated in every lane, are multiplied in."""
    word = builder.load(builder.bitcast(pointer, WORD.as_pointer()), align=1)
    return [splat(builder, part, INTEGERS) for part in _part_group(builder, word, WORD)]


def part_groups(builder: Any, groups: Any) -> list[Any]:
    """Emit what four unsigned bytes of every lane, which differ from lane to lane, are multiplied in."""
    return _part_group(builder, groups, constant)


def _part_group(builder: Any, group: Any, number: Callable[[int], Any]) -> list[Any]:
    if PRODUCTS == "vpdpbusd":
        return [group]
    if PRODUCTS == "pmaddwd":  # bytes 0 and 2, bytes 1 and 3, as pairs of 16 bits
        pairs = number(0x00FF00FF)
        return [builder.and_(group, pairs), builder.and_(builder.lshr(group, number(8)), pairs)]
    return [builder.and_(builder.lshr(group, number(8 * byte)), number(255)) for byte in range(GROUP)]


def join_groups(builder: Any, pointers: Sequence[Any]) -> Any:
    """Emit groups of bytes: a lane's are those for it at each of three or four addresses; a fourth may be anything."""
    if not SHUFFLES_BYTES:
        groups = None
        for byte, pointer in enumerate(pointers):
            wide = builder.zext(_load_bytes(builder, pointer), INTEGERS)
            groups = wide if groups is None else builder.or_(groups, builder.shl(wide, constant(8 * byte)))
        return groups
    rows = [_load_bytes(builder, pointer) for pointer in pointers]
    first, second = (_join(builder, _join(builder, pair[0], pair[-1])) for pair in (rows[:2], rows[2:]))
    order = [lane + LANES * row for lane in range(LANES) for row in (0, 1, 4, 5)]  # two more rows are anything
    quads = ir.VectorType(BYTE, GROUP * LANES)
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    return builder.bitcast(call_intrinsic(builder, name, quads, first, ir.Constant(quads, order), second), INTEGERS)


def _join(builder: Any, first: Any, second: Any = None) -> Any:
    """Emit two vectors of bytes as one; the second may be anything."""
    second = ir.Constant(first.type, ir.Undefined) if second is None else second
    lanes = ir.Constant(ir.VectorType(WORD, 2 * first.type.count), list(range(2 * first.type.count)))
    return builder.shuffle_vector(first, second, lanes)


def _load_bytes(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, BYTES.as_pointer()), align=1)


def load_weights(builder: Any, pointer: Any, byte: int = 0) -> list[Any]:
    """Emit the counterpart of `load_group`: four signed bytes for each lane, which lie together.

    They are moved up by `byte` bytes, those before are zero, and the last ones are lost.
    """
    words = builder.load(builder.bitcast(pointer, INTEGERS.as_pointer()), align=1)
    if byte:
        words = builder.shl(words, constant(8 * byte))
    return part_weights(builder, words)


def part_weights(builder: Any, words: Any) -> list[Any]:
    """Emit the counterpart of `part_groups`: four signed bytes of every lane."""
    if PRODUCTS == "vpdpbusd":
        return [words]
    if PRODUCTS == "pmaddwd":
        halves = builder.bitcast(words, HALVES)
        eight = ir.Constant(HALVES, [8] * (2 * LANES))
        even = builder.ashr(builder.shl(halves, eight), eight)
        return [builder.bitcast(half, INTEGERS) for half in (even, builder.ashr(halves, eight))]
    return [builder.ashr(builder.shl(words, constant(24 - 8 * byte)), constant(24)) for byte in range(GROUP)]


def add_products(builder: Any, sums: Any, group: list[Any], weights: list[Any]) -> Any:
    """Emit sums + the products of the four bytes, for every lane."""
    for x, w in zip(group, weights, strict=True):
        if PRODUCTS == "vpdpbusd":
            sums = call_intrinsic(builder, f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", INTEGERS, sums, x, w)
        elif PRODUCTS == "pmaddwd":
            name = "llvm.x86.avx512.pmaddw.d.512" if LANES == 16 else "llvm.x86.avx2.pmadd.wd"
            halves = [builder.bitcast(value, HALVES) for value in (x, w)]
            sums = builder.add(sums, call_intrinsic(builder, name, INTEGERS, *halves))
        else:
            sums = builder.add(sums, builder.mul(x, w))
    return sums


def keep_order(builder: Any, sums: list[Any]) -> list[Any]:
    """Emit nothing, but what comes before for these sums is done before it, and no load is done earlier.

    LLVM likes to load everything that a tile needs first, and then has no registers left for the sums.
    """
    if PRODUCTS == "multiply":
        return sums
    result = ir.LiteralStructType([INTEGERS] * len(sums)) if len(sums) > 1 else INTEGERS
    outputs, inputs = ["=v"] * len(sums), [str(index) for index in range(len(sums))]
    function_type = ir.FunctionType(result, [INTEGERS] * len(sums))
    held = builder.asm(function_type, "", ",".join([*outputs, *inputs, "~{memory}"]), sums, True)
    return [builder.extract_value(held, index) for index in range(len(sums))] if len(sums) > 1 else [held]


def call_intrinsic(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Emit the call of an intrinsic of LLVM."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


@intrinsic
def load_word(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """load_word(array, offset): the int32, as int64, whose bytes begin at an element of an array."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.sext(builder.load(builder.bitcast(pointer, WORD.as_pointer()), align=1), LONG)

    return types.int64(array, types.int64), emit


@intrinsic
def load_long(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """load_long(array, offset): the int64 whose bytes begin at an element of an array."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.load(builder.bitcast(pointer, LONG.as_pointer()), align=1)

    return types.int64(array, types.int64), emit


@intrinsic
def store_word(typing_context, array, offset, value):  # type: ignore[no-untyped-def]
    """store_word(array, offset, value): write the low half of an int64 to an array of bytes."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        builder.store(builder.trunc(arguments[2], WORD), builder.bitcast(pointer, WORD.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), emit


@intrinsic
def load_integers(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """load_integers(array, offset) -> vector: `LANES` int32, whose bytes begin at an element of an array."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.load(builder.bitcast(pointer, INTEGERS.as_pointer()), align=1)

    return integers_type(array, types.int64), emit


@intrinsic
def store_integers(typing_context, array, offset, vector):  # type: ignore[no-untyped-def]
    """store_integers(array, offset, vector): write every lane from the element `offset` of an array on."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], builder.bitcast(pointer, INTEGERS.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, integers_type), emit


@intrinsic
def load_bytes(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """load_bytes(array, offset) -> vector: `LANES` unsigned bytes as int32."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.zext(builder.load(builder.bitcast(pointer, BYTES.as_pointer()), align=1), INTEGERS)

    return integers_type(array, types.int64), emit


@intrinsic
def store_bytes(typing_context, array, offset, vector):  # type: ignore[no-untyped-def]
    """store_bytes(array, offset, vector): write the low byte of every lane."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        narrow = builder.trunc(arguments[2], BYTES)
        builder.store(narrow, builder.bitcast(pointer, BYTES.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, integers_type), emit


@intrinsic
def times(typing_context, x, y):  # type: ignore[no-untyped-def]
    """times(x, y) -> x * y for two vectors of int32."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.mul(*arguments)

    return integers_type(integers_type, integers_type), emit


@intrinsic
def exclusive_or(typing_context, x, y):  # type: ignore[no-untyped-def]
    """exclusive_or(x, y): the bits in which two vectors of int32 differ."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.xor(*arguments)

    return integers_type(integers_type, integers_type), emit


def emit_store(builder: Any, pointer: Any, vectors: Sequence[Any], low: Any, high: Any) -> None:
    """Emit a store of vectors side by side as bytes: their whole parts, clamped to low..high (int64 within 0..255)."""
    packed = 4 if LANES == 16 and PRODUCTS != "multiply" else 1
    for first in range(0, len(vectors), packed):
        place = builder.gep(pointer, [ir.Constant(LONG, first * LANES)], inbounds=True)
        some = vectors[first : first + packed]
        if len(some) == 4:
            _store_packed(builder, place, some, low, high)
            continue
        for index, vector in enumerate(some):
            limits = (splat(builder, builder.trunc(limit, WORD), INTEGERS) for limit in (low, high))
            whole = builder.ashr(vector, constant(FRACTION_BITS))
            narrow = builder.trunc(clamp_vector(builder, whole, *limits), BYTES)
            single = builder.gep(place, [ir.Constant(LONG, index * LANES)], inbounds=True)
            builder.store(narrow, builder.bitcast(single, BYTES.as_pointer()), align=1)


def _store_packed(builder: Any, pointer: Any, vectors: Any, low: Any, high: Any) -> None:
    """Emit the packing of four vectors of 16 lanes: their upper halves, which are saturated to bytes and clamped."""
    bytes_ = ir.VectorType(BYTE, 64)
    upper = ir.Constant(HALVES, list(range(1, 4 * LANES, 2)))
    halves = [builder.bitcast(vector, HALVES) for vector in vectors]
    pairs = [
        call_intrinsic(builder, "llvm.x86.avx512.vpermi2var.hi.512", HALVES, first, upper, second)
        for first, second in (halves[:2], halves[2:])
    ]
    packed = call_intrinsic(builder, "llvm.x86.avx512.packuswb.512", bytes_, *pairs)
    for name, limit in (("llvm.umax.v64i8", low), ("llvm.umin.v64i8", high)):
        single = builder.insert_element(ir.Constant(bytes_, ir.Undefined), builder.trunc(limit, BYTE), WORD(0))
        everywhere = ir.Constant(ir.VectorType(WORD, 64), [0] * 64)
        limits = builder.shuffle_vector(single, ir.Constant(bytes_, ir.Undefined), everywhere)
        packed = call_intrinsic(builder, name, bytes_, packed, limits)
    longs = builder.bitcast(packed, ir.VectorType(LONG, 8))
    order = ir.Constant(ir.VectorType(WORD, 8), [2 * eighth + pair for pair in range(2) for eighth in range(4)])
    ordered = builder.shuffle_vector(longs, ir.Constant(longs.type, ir.Undefined), order)
    builder.store(ordered, builder.bitcast(pointer, longs.type.as_pointer()), align=1)
