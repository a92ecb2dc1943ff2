"""Loops that begin with a cache line, whatever code lies before them."""

import ctypes

import llvmlite.binding
import pytest
from llvmlite import ir

from minimobile_kernels.llvm import target_machine
from minimobile_kernels.simd import INDEX, aligned_loop


def make_module() -> ir.Module:
    """Return a function that adds up the squares of [first, last), in a loop, and does so again."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(INDEX, (INDEX, INDEX)), "squares")
    builder = ir.IRBuilder(function.append_basic_block())
    total = builder.alloca(INDEX)
    builder.store(INDEX(0), total)
    for _ in range(2):
        with aligned_loop(builder, *function.args) as number:
            opaque = builder.asm(ir.FunctionType(INDEX, (INDEX,)), "", "=r,0", [number], side_effect=True)
            builder.store(builder.add(builder.load(total), builder.mul(opaque, opaque)), total)
    builder.ret(builder.load(total))
    return module


@pytest.fixture(autouse=True)
def target():
    llvmlite.binding.initialize_native_target()
    llvmlite.binding.initialize_native_asmprinter()


def test_it_computes_what_a_loop_computes():
    module = llvmlite.binding.parse_assembly(str(make_module()))
    with llvmlite.binding.create_mcjit_compiler(module, target_machine()) as engine:
        squares = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
            engine.get_function_address("squares")
        )
        assert [squares(2, 5), squares(0, 1), squares(3, 3)] == [2 * (4 + 9 + 16), 0, 0]


def test_it_begins_with_a_cache_line():
    if llvmlite.binding.llvm_version_info < (20,):
        pytest.skip("releases of LLVM before 20 may not know llvm.loop.align")
    assembly = target_machine().emit_assembly(llvmlite.binding.parse_assembly(str(make_module())))
    assert assembly.count(".p2align\t6") == 2
