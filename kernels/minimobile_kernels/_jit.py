"""How kernels are compiled: the only place that configures Numba, and the on-disk cache of what it compiled."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching
from numba.core.runtime import rtsys

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


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk for the next process."""
    dispatcher: Any = numba.jit(**OPTIONS)(function)
    dispatcher._cache = _KernelCache(function)
    return dispatcher


def is_cached(dispatcher: Any) -> bool:
    """Tell whether the machine code is in memory or on disk for this very source, CPU and Numba."""
    if dispatcher.signatures:
        return True
    return Path(dispatcher._cache._cache_file._index_path).exists()


def cache_path(dispatcher: Any) -> str:
    """Return the directory in which a function's machine code is kept."""
    return str(dispatcher._cache.cache_path)


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
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
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
