"""Code from LLVM, and into memory by LLVM, which is slow to import: `native.py` does so only where it must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding

from minimobile_kernels.abi import CALL


def target_machine() -> Any:
    """Return LLVM's description of code that is loaded anywhere in memory, as Numba has it."""
    target = llvmlite.binding.Target.from_default_triple()
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(reloc=relocation, codemodel="jitdefault", jit=True)


def load(objects: Sequence[bytes]) -> tuple[Any, int]:
    """Return an engine of LLVM that keeps object files in memory, and the address of `abi.CALL` in them."""
    llvmlite.binding.initialize_native_target()
    llvmlite.binding.initialize_native_asmprinter()
    engine = llvmlite.binding.create_mcjit_compiler(llvmlite.binding.parse_assembly(""), target_machine())
    for content in objects:
        engine.add_object_file(llvmlite.binding.ObjectFileRef.from_data(content))
    engine.finalize_object()
    return engine, engine.get_function_address(CALL)
