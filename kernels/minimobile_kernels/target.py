"""Numba's target for code that becomes one object file and is not called by Numba. `_jit.py` compiles for it.

For its own target Numba optimises every function together with all that it calls, and makes machine code of it, and
then again as a piece of each of its callers. Here functions are linked, and optimised once, when the whole is there:
the engine of floats takes 5.3 s in place of 8.5, and `detect` 3.7 in place of 5.8.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from numba.core import typing
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.cpu import CPUContext, CPUTargetOptions
from numba.core.descriptors import TargetDescriptor
from numba.core.registry import CPUDispatcher
from numba.core.target_extension import CPU, dispatcher_registry, jit_registry, target_registry
from numba.core.types import unliteral  # type: ignore[attr-defined]

NAME = "minimobile"


class Library(CPUCodeLibrary):  # type: ignore[misc]
    """A function and all that it calls, in LLVM's intermediate language."""

    def _optimize_functions(self, module: Any) -> None:
        """Leave a function as it is: to simplify it by itself takes longer than it saves later."""
        module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        """Link what is called, and leave it at that."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0: nothing is in memory."""
        return 0

    def emit_object(self, symbol: str) -> bytes:
        """Return an object file with the function `symbol`; all others are pieces of it."""
        self._ensure_finalized()
        for function in self._final_module.functions:
            if not function.is_declaration and function.name != symbol:
                function.linkage = "internal"
        self._optimize_final_module()
        self._finalize_dynamic_globals()
        content: bytes = self._codegen._tm.emit_object(self._final_module)
        return content


class _Codegen(JITCPUCodegen):  # type: ignore[misc]
    _library_class = Library

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: an environment is for functions that handle Python's objects, and for those in memory."""


class _Context(CPUContext):  # type: ignore[misc]
    def init(self) -> None:
        super().init()
        self._internal_codegen = _Codegen(NAME)


class _Descriptor(TargetDescriptor):  # type: ignore[misc]
    options = CPUTargetOptions

    @cached_property
    def typing_context(self) -> Any:
        return typing.Context()

    @cached_property
    def target_context(self) -> Any:
        return _Context(self.typing_context, NAME)


class _Dispatcher(CPUDispatcher):  # type: ignore[misc]
    targetdescr = _Descriptor(NAME)


class Function(_Dispatcher):
    """A function of ours, compiled for the types that it is called with. Those of Numba want to see constants."""

    def get_call_template(self, arguments: Any, named: Any) -> Any:
        """Compile for numbers, not again for every constant that is given or that a variable begins with."""
        return super().get_call_template(tuple(map(unliteral, arguments)), named)


class _Target(CPU):  # type: ignore[misc]
    """What Numba has for processors holds for it, too."""


def _compile_for_numba(**options: Any) -> Any:
    return partial(_Dispatcher, targetoptions=options)


target_registry[NAME] = _Target
dispatcher_registry[_Target] = _Dispatcher
jit_registry[_Target] = _compile_for_numba
