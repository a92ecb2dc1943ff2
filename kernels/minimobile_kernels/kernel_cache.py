"""Machine code on disk: one file per kernel, behind a checksum, in a directory that nobody else may write to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import secrets
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numba
from numba.core import caching, serialize
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys

from minimobile_kernels import simd

SUFFIX = ".kernel"
_DIGEST_SIZE = hashlib.sha256().digest_size


def cache_directory() -> Path:
    """Return where machine code belongs: in `NUMBA_CACHE_DIR`, else in the user's cache. It need not exist."""
    place = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    if place:
        return Path(place).absolute() / "minimobile"
    try:
        return Path("~/.cache/minimobile").expanduser()
    except RuntimeError:  # a user without a home: where nothing can be written
        return Path(os.devnull) / "minimobile"


def source_stamp() -> str:
    """Return a hash of all that the machine code follows from: the source of every kernel, and the vector sizes."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {simd.LANES} {simd.REGISTERS}".encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class KernelCache(caching._Cache):  # type: ignore[misc]
    """What Numba asks for machine code before it compiles a function, and gives the machine code to afterwards.

    Numba's own cache looks at the file of the jitted function alone, and would miss an edit in `simd.py`; it loads what
    it finds, and a bit that flipped on the disk is then another class for a picture, or the end of the process. Here a
    file begins with the SHA-256 of all that follows; one that has another is as good as none, and written again.

    Where a file cannot be written, one warning says so, and what was made for it is removed.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.directory = cache_directory()
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._source = f"{source_stamp()} {_describe_code(function.__code__)}"

    @property
    def cache_path(self) -> str:
        """The directory, as Numba's statistics have it."""
        return str(self.directory)

    def holds(self, signature: Any, target_context: Any) -> bool:
        """Tell whether there is sound machine code for this signature, source, processor and Numba."""
        return self._read(self._path(signature, target_context.codegen())) is not None

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the machine code from the disk, or None.

        Numba's own method first imports all that it could compile (0.3 s). Ready machine code needs of that only the
        runtime, which counts the references to arrays.
        """
        rtsys.initialize(target_context)
        content = self._read(self._path(signature, target_context.codegen()))
        return None if content is None else CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep machine code for the next process, or say why that cannot be."""
        assert not result.library.has_dynamic_globals, "addresses of this process mean nothing to the next one"
        content = serialize.dumps(result._reduce())
        path = self._path(signature, result.codegen)
        try:
            _write(path, hashlib.sha256(content).digest() + content)
        except OSError as error:
            warnings.warn(
                f"the compiled kernels cannot be kept in {self.directory} ({error.strerror or error}), so every "
                "process compiles them anew; NUMBA_CACHE_DIR can name another folder",
                stacklevel=2,
            )

    def enable(self) -> None:
        """Do nothing: the cache is always on."""

    def disable(self) -> None:
        """Do nothing: the cache is always on."""

    def flush(self) -> None:
        """Do nothing: what is out of date has another name."""

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = f"{self._source} {sys.version_info[:2]} {signature} {codegen.magic_tuple()}"
        return self.directory / f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}{SUFFIX}"

    def _read(self, path: Path) -> bytes | None:
        """Return what a file holds behind its checksum, None where there is none, or no sound one."""
        try:
            if _complaint(self.directory) is not None:
                return None
            content = path.read_bytes()
        except OSError:
            return None
        digest, content = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        return content if hashlib.sha256(content).digest() == digest else None


def _describe_code(code: CodeType) -> str:
    return hashlib.sha256(f"{code.co_code!r} {code.co_names} {code.co_varnames}".encode()).hexdigest()


def _complaint(directory: Path) -> str | None:
    """Say why machine code must not be taken from this directory, or put there: it is loaded and run."""
    if sys.platform == "win32":
        return None
    status = directory.stat()
    if status.st_uid != os.getuid():
        return "it belongs to another user"
    return "other users may write to it" if status.st_mode & 0o022 else None


def _write(path: Path, content: bytes) -> None:
    """Write a file wholly or not at all, and make the directories it needs: if it fails, they are gone again."""
    directory = path.parent
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        complaint = _complaint(directory)
        if complaint is not None:
            raise PermissionError(complaint)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        for folder in missing:
            with contextlib.suppress(OSError):  # not made, or in use by another process
                folder.rmdir()
        raise
