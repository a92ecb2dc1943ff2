"""How kernels are compiled: the only place that configures Numba."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numba
from numba.core import types
from numba.core.typing.templates import Signature

from minimobile_kernels.kernel_cache import KernelCache

OPTIONS: dict[str, Any] = {
    "fastmath": False,  # the order of every sum is part of the result
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
    "nopython": True,
}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that other kernels call; it is stored as part of the entry that uses it."""
    return numba.jit(**OPTIONS, no_cfunc_wrapper=True, no_cpython_wrapper=True)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function as a piece of the one that calls it.

    Every function that stands by itself is optimised and turned into machine code with all that it calls, register
    tiles included, and then again with its caller: for those between the entry and the tiles that is wasted time.
    """
    return numba.jit(**OPTIONS, inline="always")(function)


class Entry:
    """A function that Python calls: compiled for one signature alone, at its first call, and kept on disk.

    Whatever fits the signature runs the same machine code; nothing that is called ever starts the compiler again, as
    it would for an array that may only be read, or lies at an odd address.
    """

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self.dispatcher: Any = numba.jit(**OPTIONS)(function)
        self.dispatcher._cache = self._cache = KernelCache(function)
        self._signature = signature
        self._lock = threading.Lock()
        self._call: Callable[..., Any] = self._compile_and_call
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        """Run the machine code."""
        return self._call(*arguments)

    def _compile_and_call(self, *arguments: Any) -> Any:
        with self._lock:
            if not self.dispatcher.signatures:
                self.dispatcher.compile(self._signature)
                self.dispatcher.disable_compile()
        self._call = self.dispatcher
        return self.dispatcher(*arguments)

    def is_ready(self) -> bool:
        """Tell whether the machine code is in memory or on disk for this very source, CPU and Numba."""
        return bool(self.dispatcher.signatures) or self.is_kept()

    def is_kept(self) -> bool:
        """Tell whether the machine code is on disk, so that the next process need not compile it."""
        return self._cache.holds(self._signature, self.dispatcher.targetctx)

    def cache_path(self) -> str:
        """Return the directory in which the machine code is kept, where that can be written."""
        return self._cache.cache_path


def entry(*arguments: Any) -> Callable[[Callable[..., Any]], Entry]:
    """Compile a function of these Numba types that returns nothing, and keep the machine code for the next process."""
    return lambda function: Entry(function, types.void(*arguments))
