"""Vector primitives for compiled code: load, store, broadcast, fma, clamp, as Numba intrinsics over LLVM.

A vector holds `LANES` neighbouring channels, as `host.py` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from minimobile_kernels.host import LANES

FLOAT = ir.FloatType()
DOUBLE = ir.DoubleType()
INDEX = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
WIDE = ir.VectorType(DOUBLE, LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)
LINE_BYTES = 64  # of a cache
_MODELS = {"float32": VECTOR, "float64": WIDE, "int32": INTEGERS}


class VectorType(types.Type):
    """Numba's type of a vector of `LANES` float32, of float64 for exact sums, or of int32 for quantised networks."""

    def __init__(self, element: str) -> None:
        super().__init__(name=f"{element}x{LANES}")
        self.model = _MODELS[element]


vector_type = VectorType("float32")
wide_type = VectorType("float64")
integers_type = VectorType("int32")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, vector.model)


def element_pointer(builder: Any, context: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Emit the address of element `index` of a contiguous array, counted through all of its axes."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index], inbounds=True)


def load_vector(builder: Any, pointer: Any) -> Any:
    """Emit a load of `LANES` neighbouring floats from any float address."""
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def store_vector(builder: Any, vector: Any, pointer: Any) -> None:
    """Emit a store of `LANES` neighbouring floats."""
    builder.store(vector, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def splat(builder: Any, value: Any, vector: Any = VECTOR) -> Any:
    """Emit a vector that holds `value` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, undefined, lanes)


def fused_multiply_add(builder: Any, x: Any, w: Any, accumulator: Any) -> Any:
    """Emit x * w + accumulator with one rounding."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
    )
    return builder.call(function, [x, w, accumulator])


def prefetch(builder: Any, pointer: Any) -> None:
    """Emit a hint to bring the line at an address, which may be any, into the second-level cache."""
    number = ir.IntType(32)
    byte = ir.IntType(8).as_pointer()
    hint = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
    for_reading, second_level, data = number(0), number(2), number(1)
    builder.call(function, [builder.bitcast(pointer, byte), for_reading, second_level, data])


@contextmanager
def aligned_loop(builder: Any, first: Any, last: Any) -> Iterator[Any]:
    """Emit a loop over [first, last) that begins with a cache line, and yield its number.

    Else how long it takes hangs on where the code before it ends. LLVM's older releases, which do not know what says so
    (`llvm.loop.align`), pass over it.
    """
    with cgutils.for_range_slice(builder, first, last, INDEX(1)) as (number, _):
        yield number
        end = builder.basic_block
    module = builder.module
    told = module.add_metadata([ir.MetaDataString(module, "llvm.loop.align"), ir.IntType(32)(LINE_BYTES)])
    loop = ir.MDValue(module, [told], name=str(len(module.metadata)))
    loop.operands = (loop, told)  # what names a loop is a node whose first operand is itself
    end.terminator.set_metadata("llvm.loop", loop)


def clamp_vector(builder: Any, vector: Any, low: Any, high: Any) -> Any:
    """Emit low where the vector is less, high where it is greater, else the vector: NaN and -0 stay as they are."""
    compare = builder.icmp_signed if vector.type == INTEGERS else builder.fcmp_ordered
    raised = builder.select(compare("<", vector, low), low, vector)
    return builder.select(compare(">", raised, high), high, raised)


def emit_choice(
    builder: Any, given: Sequence[Any], choices: Sequence[tuple[int | None, ...]], emit: Callable[[Any], None]
) -> None:
    """Emit a ladder: emit(choice) for the first choice that has the given numbers, or else for the last.

    None stands for any number.
    """
    choice, *others = choices
    if not others:
        emit(choice)
        return
    is_it = ir.Constant(ir.IntType(1), 1)
    for value, number in zip(given, choice, strict=True):
        if number is not None:
            is_it = builder.and_(is_it, builder.icmp_signed("==", value, ir.Constant(value.type, number)))
    with builder.if_else(is_it) as (then, otherwise):
        with then:
            emit(choice)
        with otherwise:
            emit_choice(builder, given, others, emit)


def unpack(context: Any, builder: Any, value_type: Any, value: Any) -> Any:
    """Return what an intrinsic was given, ready for emitting.

    An array is the address of its first element, a named tuple one of its class with unpacked fields, and a number
    what it is.
    """
    if isinstance(value_type, types.Array):
        return cgutils.create_struct_proxy(value_type)(context, builder, value=value).data
    if hasattr(value_type, "instance_class"):
        fields = enumerate(value_type.types)
        values = (unpack(context, builder, field, builder.extract_value(value, index)) for index, field in fields)
        return value_type.instance_class(*values)
    return value


@intrinsic
def load(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """load(array, offset) -> vector: the `LANES` floats of a one-dimensional array from `offset` on."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return load_vector(builder, pointer)

    return vector_type(array, types.int64), emit


@intrinsic
def store(typing_context, array, offset, vector):  # type: ignore[no-untyped-def]
    """store(array, offset, vector): write the `LANES` floats of a one-dimensional array from `offset` on."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        store_vector(builder, arguments[2], pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector_type), emit


@intrinsic
def broadcast(typing_context, value):  # type: ignore[no-untyped-def]
    """broadcast(value) -> vector: a float32, or the low half of an int64, in every lane."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _splat_number(builder, signature.args[0], arguments[0])

    return (integers_type(types.int64) if isinstance(value, types.Integer) else vector_type(types.float32)), emit


def _splat_number(builder: Any, number_type: Any, number: Any) -> Any:
    if isinstance(number_type, types.Integer):
        return splat(builder, builder.trunc(number, INTEGERS.element), INTEGERS)
    return splat(builder, number)


@intrinsic
def fma(typing_context, x, w, accumulator):  # type: ignore[no-untyped-def]
    """fma(x, w, accumulator) -> x * w + accumulator for vectors or numbers, rounded once: see reference.fma."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fma(*arguments) if x == types.float32 else fused_multiply_add(builder, *arguments)

    return x(x, x, x), emit


@intrinsic
def add(typing_context, x, y):  # type: ignore[no-untyped-def]
    """add(x, y) -> x + y for two vectors of one type."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.add(*arguments) if x == integers_type else builder.fadd(*arguments)

    return x(x, x), emit


@intrinsic
def clamp(typing_context, vector, low, high):  # type: ignore[no-untyped-def]
    """clamp(vector, low, high): floats with float32 limits, of which NaN and -0 stay; int32 with int64 limits."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, *limits = arguments
        low, high = (
            _splat_number(builder, limit, value) for limit, value in zip(signature.args[1:], limits, strict=True)
        )
        return clamp_vector(builder, vector, low, high)

    limit = types.int64 if vector == integers_type else types.float32
    return vector(vector, limit, limit), emit


@intrinsic
def widen(typing_context, vector):  # type: ignore[no-untyped-def]
    """widen(vector) -> the same values as float64."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fpext(arguments[0], WIDE)

    return wide_type(vector_type), emit


@intrinsic
def divide(typing_context, vector, divisor):  # type: ignore[no-untyped-def]
    """divide(vector, divisor) -> a wide vector over a float64, rounded to float32."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        quotient = builder.fdiv(arguments[0], splat(builder, arguments[1], WIDE))
        return builder.fptrunc(quotient, VECTOR)

    return vector_type(wide_type, types.float64), emit


@intrinsic
def keep_apart(typing_context):  # type: ignore[no-untyped-def]
    """keep_apart(): as a function's first statement, have it compiled once and called, not copied into its callers.

    Without it, each kernel gets its own copy of every register tile: 816 fused multiply-adds where 363 are enough.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), emit
