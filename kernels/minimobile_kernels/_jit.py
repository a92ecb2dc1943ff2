"""How kernels are compiled: the only place that configures Numba, and the on-disk cache of what it compiled."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching, types
from numba.core.runtime import rtsys
from numba.core.typing.templates import Signature

from minimobile_kernels import simd

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
        self.dispatcher._cache = _KernelCache(function)
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
        return bool(self.dispatcher.signatures) or Path(self.dispatcher._cache._cache_file._index_path).exists()

    def cache_path(self) -> str:
        """Return the directory in which the machine code is kept."""
        return str(self.dispatcher._cache.cache_path)


def entry(*arguments: Any) -> Callable[[Callable[..., Any]], Entry]:
    """Compile a function of these Numba types that returns nothing, and keep the machine code for the next process."""
    return lambda function: Entry(function, types.void(*arguments))


def cache_directory() -> Path:
    """Return where machine code is kept: `NUMBA_CACHE_DIR`, else the user's cache, else a private temporary directory.

    Cached code is loaded and run, so a directory that others may write to is never used.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        candidates = [Path(given) / "minimobile"]
    else:
        home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
        candidates = [Path(home) / "minimobile"]
    for candidate in candidates:
        if _is_private_and_writable(candidate):
            return candidate
    return Path(tempfile.mkdtemp(prefix="minimobile-"))


def _is_private_and_writable(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = directory.stat()
    except OSError:
        return False
    is_own = sys.platform == "win32" or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return is_own and os.access(directory, os.W_OK)


def source_stamp() -> str:
    """Return a hash of all that the machine code follows from: the source of every kernel, and the vector sizes."""
    digest = hashlib.sha256(f"{numba.__version__} {simd.LANES} {simd.REGISTERS}".encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Tells Numba where the cache is and when it is out of date.

    Numba's own locators look at the file of the jitted function alone, and would miss an edit in `simd.py`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stamp = source_stamp()
        self._directory = cache_directory()

    def get_cache_path(self) -> str:
        return str(self._directory)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return self._stamp[:16]

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func.__qualname__)


class _CacheImplementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _KernelCache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _CacheImplementation

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Load from disk; a file that is damaged, in whatever way, counts as absent and is written again.

        Numba's own method first imports all that it could compile (0.3 s). Ready machine code needs of that only the
        runtime, which counts the references to arrays.
        """
        try:
            rtsys.initialize(target_context)
            return self._load_overload(signature, target_context)
        except Exception:
            self.flush()
            return None
