"""Temporary files and folders beside what they become, and the end of those whose process is no more.

Each is held by a lock while it is written, which the end of the process undoes, however it ends: what nobody holds was
left behind, and the next one to write the same target removes it. For that the names are few. They hold the machine's,
too, for not every file system tells one machine of another's locks. Where there are no locks, names are made by chance,
and nobody removes what has one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BEGUN = "begun"
"""A file that makes a folder more than temporary: what it holds is nowhere else. Whoever can finish it removes it."""
FOLDERS = ".minimobile-"
"""How the names of temporary folders begin."""
_PLACES = 8  # for writers of one target at a time; more of them have names of chance
_LONGEST_STEM, _LONGEST_HOST = 50, 30  # characters: a name may have 255 bytes


def host_name() -> str:
    """Return this machine's name as file names hold it."""
    import platform  # which takes a while, and reading needs none

    return re.sub(r"[^A-Za-z0-9_-]", "_", platform.node()) or "host"


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield an empty file beside `target`, to be written and renamed; if it is not renamed, it is removed."""
    stem = target.name[:_LONGEST_STEM]
    with _temporary(lambda key: target.with_name(f".{stem}.{key}.tmp"), _make_file, remove_file) as path:
        yield path


@contextmanager
def temporary_folder(place: Path, target: Path) -> Iterator[Path]:
    """Yield an empty folder in `place` for what `target` will hold; it is removed with what is left in it."""
    stem = target.name[:_LONGEST_STEM]
    with _temporary(lambda key: place / f"{FOLDERS}{stem}-{key}", _make_folder, _remove_folder) as path:
        yield path


def remove_left_folder(path: Path) -> None:
    """Remove a temporary folder that a process that is no more has left, unless another one is at it."""
    _remove_left(path, _remove_folder)


def remove_file(path: Path) -> None:
    """Remove a file, as far as that can be done."""
    with contextlib.suppress(OSError):  # it need not be there, and a file system that is read-only refuses even that
        path.unlink(missing_ok=True)


@contextmanager
def _temporary(
    name: Callable[[str], Path], make: Callable[[Path], None], remove: Callable[[Path], None]
) -> Iterator[Path]:
    """Yield what `make` makes under one of the names, after what was left behind under all of them is gone."""
    with contextlib.ExitStack() as stack:
        handle = None
        for path in _places(name):
            _remove_left(path, remove)
            if handle is None and (handle := _make_held(path, make, remove)) is not None:
                stack.callback(os.close, handle)
                own = path
        if handle is None:
            own = name(os.urandom(6).hex())
            make(own)
        try:
            yield own
        finally:
            if handle is None or _is_at(handle, own):  # what was renamed leaves its name to others
                remove(own)


def _places(name: Callable[[str], Path]) -> Iterator[Path]:
    host = host_name()[:_LONGEST_HOST]
    for number in range(_PLACES) if os.name == "posix" else ():
        yield name(f"{host}-{number}")


def _remove_left(path: Path, remove: Callable[[Path], None]) -> None:
    """Remove what a process that is no more has left, unless it is to be finished."""
    with contextlib.suppress(OSError):  # there is none, somebody holds it, or there are no locks
        handle = _hold(path)
        try:
            if not (path / BEGUN).exists():
                remove(path)
        finally:
            os.close(handle)


def _make_held(path: Path, make: Callable[[Path], None], remove: Callable[[Path], None]) -> int | None:
    """Make something new and return the handle that holds it, None where another one has the name, or without locks."""
    try:
        make(path)
    except FileExistsError:
        return None
    try:
        return _hold(path)
    except (BlockingIOError, FileNotFoundError):  # somebody was quicker, and takes it for left behind
        return None
    except OSError:
        remove(path)
        return None


def _hold(path: Path) -> int:
    """Return a handle that holds a file or folder until it is closed. Raises BlockingIOError where another one does."""
    import fcntl

    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # the other end of a pipe is not waited for
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(handle, path):
            raise BlockingIOError(f"{path} was another one's, and is gone")
    except BaseException:
        os.close(handle)
        raise
    return handle


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _make_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _make_folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def _remove_folder(path: Path) -> None:
    import shutil  # which takes a while

    shutil.rmtree(path)
