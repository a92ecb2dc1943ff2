"""How kernels are compiled: the only place that configures Numba."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Any

import numba
from llvmlite import ir
from llvmlite.binding import parse_assembly
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock

from minimobile_kernels.abi import CALL, SYSTEM_CALLS, THREAD, UNFIT, Array, Number, Parameter
from minimobile_kernels.llvm import target_machine
from minimobile_kernels.target import Function, Library

OPTIONS: dict[str, Any] = {
    "fastmath": False,  # the order of every sum is part of the result
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
    "nopython": True,
    "no_cfunc_wrapper": True,  # called by other compiled code alone, and by address
    "no_cpython_wrapper": True,
}
INT32, INT64, DOUBLE, POINTER = ir.IntType(32), ir.IntType(64), ir.DoubleType(), ir.IntType(8).as_pointer()
C_CONTIGUOUS, WRITEABLE = 0x1, 0x400  # of NumPy's flags


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that other kernels call; it is stored as part of the entry that uses it."""
    return Function(function, targetoptions=OPTIONS)


def compile_entry(module: str, name: str, parameters: tuple[Parameter, ...]) -> tuple[bytes, bytes]:
    """Return two object files: the function itself, and under the name `abi.CALL` what calls it with a table."""
    dispatcher = compiled(getattr(import_module(module), name))
    with global_compiler_lock, _without_collections():
        dispatcher.compile(tuple(map(_numba_type, parameters)))
        (result,) = dispatcher.overloads.values()
        symbol = result.fndesc.llvm_func_name
        content = result.library.emit_object(symbol)
    _check_calls(result.library)
    return content, _compile_call(symbol, parameters)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Have nothing look for garbage meanwhile: a tenth of the time, in which there is hardly any to be found."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_calls(library: Library) -> None:
    """See that machine code calls nothing, and knows no place, that is not there without Numba."""
    assert not library.has_dynamic_globals, "addresses of this process mean nothing to the next one"
    called = {function.name for function in library._final_module.functions if function.is_declaration}
    unknown = {name for name in called - SYSTEM_CALLS - set(_SUPPLIED) if not name.startswith("llvm.")}
    assert not unknown, f"compiled code calls {unknown}"


def _numba_type(parameter: Parameter) -> Any:
    scalar = numba.from_dtype(parameter.dtype)
    if isinstance(parameter, Number):
        return scalar
    is_record = parameter.dtype.names is not None
    return types.Array(scalar, parameter.dimensions, "C", readonly=not parameter.is_written, aligned=not is_record)


def _compile_call(symbol: str, parameters: tuple[Parameter, ...]) -> bytes:
    """Compile what unpacks a table, looks at the arrays in it, and calls Numba's function by its convention.

    An array travels as seven values or more: its owner (none), its object (none), its size, the size of an element,
    the address, and the shape and the strides.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(INT32, [INT64.as_pointer(), INT64]), CALL)
    builder = ir.IRBuilder(function.append_basic_block())
    table, thread = function.args
    shared = [parameter for parameter in parameters if parameter is not THREAD]
    types_of = count(len(shared))
    values: list[Any] = [builder.alloca(POINTER), builder.alloca(POINTER)]  # of a result and of an exception
    for place, parameter in enumerate(shared):
        value = builder.load(builder.gep(table, [INT64(place)]))
        if isinstance(parameter, Array):
            values += _unpack(builder, parameter, value, builder.load(builder.gep(table, [INT64(next(types_of))])))
        else:
            values.append(builder.bitcast(value, DOUBLE) if parameter.dtype == "float64" else value)
    values += [thread] * (len(parameters) - len(shared))
    callee = ir.Function(module, ir.FunctionType(INT32, [value.type for value in values]), symbol)
    builder.ret(builder.call(callee, values))
    for name, supply in _SUPPLIED.items():
        supply(module, name)
    content: bytes = target_machine().emit_object(parse_assembly(str(module)))
    return content


def _unpack(builder: Any, parameter: Array, place: Any, dtype: Any) -> list[Any]:
    """Emit a look at an array at `place`, and return its values; another type or layout ends the call.

    The fields are PyArrayObject_fields of NumPy's ndarraytypes.h, behind the head that every object of Python has.
    """
    item = parameter.dtype.itemsize

    def field(offset: int, kind: Any) -> Any:
        address = builder.add(place, INT64(object.__basicsize__ + offset))
        return builder.load(builder.inttoptr(address, kind.as_pointer()))

    data, dimensions, shape = field(0, INT64), field(8, INT32), field(16, INT64)
    needed = INT32(C_CONTIGUOUS | WRITEABLE if parameter.is_written else C_CONTIGUOUS)
    is_fit = builder.icmp_signed("==", field(40, INT64), dtype)
    is_fit = builder.and_(is_fit, builder.icmp_signed("==", dimensions, INT32(parameter.dimensions)))
    is_fit = builder.and_(is_fit, builder.icmp_signed("==", builder.and_(field(48, INT32), needed), needed))
    with builder.if_then(builder.not_(is_fit), likely=False):
        builder.ret(INT32(UNFIT))
    sizes = builder.inttoptr(shape, INT64.as_pointer())
    counts = [builder.load(builder.gep(sizes, [INT64(axis)])) for axis in range(parameter.dimensions)]
    strides = [INT64(item)]  # from the last dimension to the first, and then the size in bytes
    for number in reversed(counts):
        strides.insert(0, builder.mul(strides[0], number))
    nothing, pointer = POINTER(None), builder.inttoptr(data, POINTER)
    return [nothing, nothing, builder.udiv(strides[0], INT64(item)), INT64(item), pointer, *counts, *strides[1:]]


def _supply_nothing(module: Any, name: str) -> None:
    """Numba's runtime frees arrays that compiled code has made; ours makes none."""
    ir.IRBuilder(ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name).append_basic_block()).ret_void()


def _supply_ldexp(module: Any, name: str) -> None:
    """x * 2**exponent, as the system's library computes it, which is exact."""
    kind = ir.FunctionType(DOUBLE, [DOUBLE, INT32])
    function, library = ir.Function(module, kind, name), ir.Function(module, kind, "ldexp")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.call(library, function.args))


_SUPPLIED: dict[str, Callable[[Any, str], None]] = {
    "NRT_MemInfo_call_dtor": _supply_nothing,
    "numba_ldexp": _supply_ldexp,
}
