"""Machine code on disk: one file per entry, behind a checksum, in a directory that nobody else may write to."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from minimobile_kernels import host

SUFFIX = ".kernel"
KEPT = 16  # files of one entry: for other sources, processors and releases of Numba than today's
_DAY = 86_400  # seconds
_DIGEST_SIZE = hashlib.sha256().digest_size
_SIZE_BYTES = 8  # of the number before each object file


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
    """Return a hash of all that the machine code follows from but the processor: the sources, Numba, and LLVM."""
    python = f"{sys.version_info[:2]} {object.__basicsize__}"
    digest = hashlib.sha256(f"{_release('numba')} {_release('llvmlite')} {python}".encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def file_name(entry: str, parameters: str) -> str:
    """Return the name of the file that holds an entry with these parameters, for this source, processor and Numba."""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    key = f"{_stamp()} {parameters} {host.LANES} {host.REGISTERS} {features} {host.description()}"
    return f"{entry}-{hashlib.sha256(key.encode()).hexdigest()[:24]}{SUFFIX}"


def read(name: str) -> tuple[bytes, ...] | None:
    """Return the object files that a file holds, None where there is none, or no sound one.

    A file begins with the SHA-256 of all that follows: what a bit that flipped on the disk would be is another class
    for a picture, or the end of the process.
    """
    path = cache_directory() / name
    try:
        if _complaint(path.parent) is not None:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    _note_use(path)
    digest, content = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    if hashlib.sha256(content).digest() != digest:
        return None
    objects = []
    while content:
        end = _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little")
        objects.append(content[_SIZE_BYTES:end])
        content = content[end:]
    return tuple(objects)


def write(name: str, objects: Sequence[bytes]) -> None:
    """Keep object files for the next process, or say in one warning per process why that cannot be.

    Of the files of its entry the `KEPT` that were used last stay. Who reads another now has it whole, or compiles.
    """
    directory = cache_directory()
    content = b"".join(len(part).to_bytes(_SIZE_BYTES, "little") + part for part in objects)
    try:
        _write(directory / name, hashlib.sha256(content).digest() + content)
    except OSError as error:
        _warn(directory, error.strerror or str(error))
    else:
        _drop_oldest(directory, name)


@functools.cache  # Python's own filter forgets what it showed whenever anybody changes the filters
def _warn(directory: Path, reason: str) -> None:
    warnings.warn(
        f"the compiled kernels cannot be kept in {directory} ({reason}), so every process compiles them anew; the "
        "environment variable NUMBA_CACHE_DIR can name another folder",
        stacklevel=3,
    )


def can_write() -> bool:
    """Tell whether machine code can be put where it belongs, as far as can be seen without doing so."""
    directory = cache_directory()
    try:
        nearest = next(folder for folder in (directory, *directory.parents) if folder.exists())
        return nearest.is_dir() and os.access(nearest, os.W_OK) and (nearest != directory or not _complaint(directory))
    except OSError:
        return False


@functools.cache
def _stamp() -> str:
    return source_stamp()


def _release(package: str) -> str:
    """Return which release of Numba or llvmlite there is, without importing it: it stands in a file of its own."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, "a requirement of this package"
    return hashlib.sha256((Path(spec.origin).parent / "_version.py").read_bytes()).hexdigest()


def _complaint(directory: Path) -> str | None:
    """Say why machine code must not be taken from this directory, or put there: it is loaded and run."""
    if sys.platform == "win32":
        return None
    status = directory.stat()
    if status.st_uid != os.getuid():
        return "it belongs to another user"
    return "other users may write to it" if status.st_mode & 0o022 else None


def _note_use(path: Path) -> None:
    """Have a file count as new, at most once a day."""
    with contextlib.suppress(OSError):  # dropped meanwhile, or on a disk that is read-only
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)


def _drop_oldest(directory: Path, name: str) -> None:
    """Remove files of the entry of `name`, which was just written and stays, whatever the clock said to others."""
    found = []
    with contextlib.suppress(OSError):  # the directory may be gone
        for path in directory.glob(f"{name.rpartition('-')[0]}-*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process was quicker
                found.append((path.name == name, path.stat().st_mtime_ns, path))
    for *_, path in sorted(found, reverse=True)[KEPT:]:
        with contextlib.suppress(OSError):
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    """Write a file wholly or not at all, and make the directories it needs: if it fails, they are gone again."""
    directory = path.parent
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp")
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
