"""The functions that Python calls, in machine code: taken from the disk, or else compiled, and called by address.

Numba compiles them (`_jit.py`). Where the machine code of all that is called lies on the disk, Numba is not imported
(0.15 s), nor, on the systems that `elf.py` is for, LLVM (0.05 s and 53 MB).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from minimobile_kernels import elf, kernel_cache
from minimobile_kernels.abi import CALL, THREAD, UNFIT, Array, Parameter
from minimobile_kernels.forks import make_lock

_BYTES_HEAD = bytes.__basicsize__ - 1  # of a bytes object; its content, which ends with a zero, comes after it
_CALL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64)


class Call:
    """Machine code with its arguments, which it keeps alive: a thread may be late."""

    __slots__ = ("_arguments", "_entry", "_function", "_table")

    def __init__(self, entry: Entry, function: Any, table: bytes, arguments: tuple[Any, ...]) -> None:
        self._entry = entry
        self._function = function
        self._table = table
        self._arguments = arguments

    def places(self) -> tuple[int, int]:
        """Return the addresses of the machine code and of the table, which hold for as long as this call lives."""
        return self._entry.address, id(self._table) + _BYTES_HEAD

    def __call__(self, thread: int = 0) -> None:
        """Run the machine code; other Python threads go on meanwhile."""
        if self._function(self._table, thread) == UNFIT:
            settled = self._entry.settle(self._arguments)
            status = self._function(self._entry.table(settled), thread)
            assert status == 0, "compiled code raises nothing"


class Entry:
    """A function of compiled code that Python calls, and which returns nothing.

    `module` and `name` say where it is written, `parameters` what it takes: arrays first, then numbers. It is compiled
    for these alone, at the first call in a process for which it is not on disk; whatever else is given is a TypeError.
    """

    def __init__(self, module: str, name: str, *parameters: Parameter) -> None:
        self.module = module
        self.name = name
        self.parameters = parameters
        self._has_thread = parameters[-1] is THREAD
        self._shared = parameters[:-1] if self._has_thread else parameters
        self._types = [id(parameter.dtype) for parameter in parameters if isinstance(parameter, Array)]
        self._count = len(self._types)
        numbers = "".join("d" if each.dtype == "float64" else "q" for each in self._shared[self._count :])
        self._pack = struct.Struct(f"={self._count}q{numbers}{self._count}q").pack
        self._lock = make_lock()
        self._engine: Any = None
        self._function: Any = None
        self.address = 0  # of the machine code, once it is loaded

    def __call__(self, *arguments: Any) -> None:
        """Run the machine code with arguments as `parameters` has them."""
        if self._has_thread:
            self.bind(*arguments[:-1])(arguments[-1])
        else:
            self.bind(*arguments)()

    def bind(self, *arguments: Any) -> Call:
        """Return a call with these arguments, all but the thread's number, which may be made by many threads.

        Machine code finds address and shape of an array in the array itself, as NumPy's C interface lays it out, and
        compares its type: in Python that would take 6 us a call.
        """
        return Call(self, self._function or self._load(), self.table(arguments), arguments)

    def table(self, arguments: Sequence[Any]) -> bytes:
        """Return what machine code is given: where the arrays are, the numbers, and which types it has to find."""
        arrays, numbers = arguments[: self._count], arguments[self._count :]
        if set(map(type, arrays)) != {np.ndarray} or len(arguments) != len(self._shared):
            raise self._refusal(arguments)
        return self._pack(*map(id, arrays), *numbers, *self._types)

    def settle(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return arguments whose types are the very objects that machine code compares, where they are equal to these.

        NumPy makes others now and then: of a type with metadata, of one that was pickled, of records that are joined.
        """
        settled = list(arguments)
        for place, kind in enumerate(self._shared[: self._count]):
            given = arguments[place]
            assert isinstance(kind, Array)
            is_fit = given.dtype == kind.dtype and given.ndim == kind.dimensions and given.flags.c_contiguous
            if not is_fit or (kind.is_written and not given.flags.writeable):
                raise self._refusal(arguments)
            settled[place] = given.view(kind.dtype)
        return tuple(settled)

    def _refusal(self, arguments: Sequence[Any]) -> TypeError:
        kinds = [(each.dtype, each.shape) if isinstance(each, np.ndarray) else each for each in arguments]
        return TypeError(f"{self.name}: expected {self._shared}, contiguous and writeable if written, got {kinds}")

    def is_ready(self) -> bool:
        """Tell whether the machine code is in memory, or on disk for this very source, processor and Numba."""
        return self._function is not None or self.is_kept()

    def is_kept(self) -> bool:
        """Tell whether the machine code is on disk, so that the next process need not compile it."""
        return kernel_cache.read(self._file_name()) is not None

    def load(self) -> None:
        """Put the machine code into memory, from the disk or else compiled."""
        if self._function is None:
            self._load()

    def _file_name(self) -> str:
        return kernel_cache.file_name(f"{self.module}.{self.name}", str(self.parameters))

    def _load(self) -> Any:
        with self._lock:
            if self._function is None:
                name = self._file_name()
                objects = kernel_cache.read(name)
                if objects is None:
                    objects = import_module("minimobile_kernels._jit").compile_entry(
                        self.module, self.name, self.parameters
                    )
                    kernel_cache.write(name, objects)
                self._engine, self.address = load(objects)
                self._function = _CALL(self.address)
        return self._function


def load(objects: Sequence[bytes]) -> tuple[Any, int]:
    """Return what keeps object files in memory (None: they stay there), and the address of `abi.CALL` in them."""
    if elf.is_for_this_system():
        try:
            return None, elf.load(objects, CALL)
        except elf.UnknownObjectError:  # another release of LLVM may write what this one does not
            pass
    found: tuple[Any, int] = import_module("minimobile_kernels.llvm").load(objects)
    return found
