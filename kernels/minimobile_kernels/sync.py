"""How threads share the steps of a program inside compiled code: claims and counts, and no thread that must come."""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minimobile_kernels import simd
from minimobile_kernels._jit import compiled
from minimobile_kernels.step import ENTRIES, LINE

SPINS = 1000  # about 50 microseconds; after that the processor is offered to others, for the machine may be busy


@intrinsic
def atomic_add(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """atomic_add(array, index, value): add to an int64 that other threads also change."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = simd.element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.atomic_rmw("add", pointer, arguments[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), emit


@intrinsic
def atomic_load(typing_context, array, index):  # type: ignore[no-untyped-def]
    """atomic_load(array, index): read an int64 that other threads change, and all that they wrote before."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = simd.element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(array, types.int64), emit


@intrinsic
def atomic_store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """atomic_store(array, index, value): write an int64 that other threads read, after all that was written before."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = simd.element_pointer(builder, context, signature.args[0], arguments[0], arguments[1])
        builder.store_atomic(arguments[2], pointer, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), emit


@intrinsic
def call_address(typing_context, function, table, thread):  # type: ignore[no-untyped-def]
    """call_address(function, table, thread): make a call of `abi.CALL`, given where its code and its table lie."""
    entry = ir.FunctionType(ir.IntType(32), [ir.IntType(64).as_pointer(), ir.IntType(64)])

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        function, table, thread = arguments
        address = builder.inttoptr(table, ir.IntType(64).as_pointer())
        return builder.call(builder.inttoptr(function, entry.as_pointer()), [address, thread])

    return types.int32(types.int64, types.int64, types.int64), emit


@intrinsic
def yield_processor(typing_context):  # type: ignore[no-untyped-def]
    """yield_processor(): let another thread of the machine run."""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), name)
        return builder.call(function, [])

    return types.int32(), emit


@intrinsic
def relax(typing_context):  # type: ignore[no-untyped-def]
    """relax(): tell the processor that this is a loop that waits."""
    machine = platform.machine().lower()
    is_x86, is_arm = machine in ("x86_64", "amd64"), machine in ("aarch64", "arm64")
    barrier = ir.IntType(32)(15)  # the whole system; an ISB takes as long as some loads, where YIELD takes no time

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        nothing = ir.VoidType()
        if is_x86:
            pause = ir.FunctionType(nothing, [])
            builder.call(cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), [])
        if is_arm:
            isb = ir.FunctionType(nothing, [barrier.type])
            builder.call(cgutils.get_or_insert_function(builder.module, isb, "llvm.aarch64.isb"), [barrier])
        return context.get_dummy_value()

    return types.void(), emit


@compiled
def claim(control: Any, index: int, parts: int, thread: int, threads: int) -> Any:
    """Return the number of a part of step `index` that nobody has taken, or `parts` when all are taken.

    Every thread begins with a range of its own, the same of every step: what it reads of the step before is then mostly
    what it wrote, and its counter lies in its own cache. Only then does it look for what others have left.
    """
    for distance in range(threads):
        owner = thread + distance if thread + distance < threads else thread + distance - threads
        place = (index * threads + owner) * ENTRIES
        first, last = parts * owner // threads, parts * (owner + 1) // threads
        if distance == 0 or atomic_load(control, place) < last - first:
            part = first + atomic_add(control, place, 1)
            if part < last:
                return part
    return parts


@compiled
def finish(control: Any, index: int, thread: int, threads: int) -> None:
    """Count one part of step `index` as done, and all that was written for it as visible."""
    atomic_add(control, (index * threads + thread) * ENTRIES + LINE, 1)


@compiled
def wait(control: Any, index: int, parts: int, threads: int) -> None:
    """Wait until all parts of step `index` are done."""
    spins = 0
    while True:
        done = 0
        for thread in range(threads):
            done += atomic_load(control, (index * threads + thread) * ENTRIES + LINE)
        if done >= parts:
            break
        relax()
        spins += 1
        if spins > SPINS:
            yield_processor()
