"""Files of a run: created once by whoever comes first, written whole, and cleared away after those who died."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.storage.temporary import host_name

_TEMPORARY = re.compile(r"^_.*\.(?P<host>[^.]*)-(?P<process>\d+)\.tmp$")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL)  # Windows on FAT


def temporary_name(path: Path) -> Path:
    """Return the name under which this process writes `path`: readers of tables pass over names that begin with `_`."""
    return path.with_name(f"_{path.name.lstrip('_')}.{host_name()}-{os.getpid()}.tmp")


def create_once(path: Path, lines: Iterable[bytes]) -> bool:
    """Create a file whole, unless it exists: True for the process, of all machines, that created it."""
    if path.exists():
        return False
    temporary = temporary_name(path)
    try:
        with naming(path):
            with temporary.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            return _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file, or a name for a folder, that becomes `path` once it is on the disk."""
    temporary = temporary_name(path)
    try:
        with naming(path):
            path.parent.mkdir(exist_ok=True)
            _remove(temporary)
            yield temporary
            if temporary.is_dir():
                _sync_files(temporary)
                _replace_folder(temporary, path)
            else:
                _sync_file(temporary)
                temporary.replace(path)
            sync_folder(path.parent)
    finally:
        _remove(temporary)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have a failure to write say which file could not be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise FormatError(f"{path}: cannot be written ({reason}); what is done stays, run it again to go on") from error


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files of processes of this machine that are no more."""
    for path in _find_temporary(folder):
        found = _TEMPORARY.match(path.name)
        if found and found["host"] == host_name() and not is_alive(int(found["process"])):
            _remove(path)


def clear_of_process(folder: Path, process: int) -> None:
    """Remove the temporary files of one process of this machine."""
    for path in _find_temporary(folder):
        if path.name.endswith(f".{host_name()}-{process}.tmp"):
            _remove(path)


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine exists; where the system cannot tell, it does."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can do that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # not every file system syncs folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync_files(folder: Path) -> None:
    """Bring a folder's files to the disk: by one call for a hundred of them, where the system has one."""
    if hasattr(os, "sync"):
        os.sync()
    else:
        for path in folder.iterdir():
            _sync_file(path)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _copy_once(temporary, path)
    sync_folder(path.parent)
    return True


def _copy_once(temporary: Path, path: Path) -> bool:
    """Create a file where there are no hard links: exclusively, though others may see it before it is whole."""
    try:
        with path.open("xb") as file:
            file.write(temporary.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _find_temporary(folder: Path) -> Iterator[Path]:
    """Yield what is temporary in a folder and in those below it; what others take away meanwhile is passed over."""
    for place, folders, files in os.walk(folder):
        named = [name for name in (*folders, *files) if name.startswith("_") and name.endswith(".tmp")]
        folders[:] = [name for name in folders if name not in named]
        yield from (Path(place, name) for name in named)


def _replace_folder(folder: Path, path: Path) -> None:
    """Give a folder a name under which another process, or a run that was killed, may have put the same before.

    That one is moved aside and not removed first: its name is free for as long as a rename takes, and not for as long
    as its files take to be deleted, within which a kill would leave a table without them.
    """
    before: list[Path] = []
    while folder.exists():
        try:
            folder.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            before.append(temporary_name(path.with_name(f"{path.name}-before-{len(before)}")))
            with contextlib.suppress(FileNotFoundError):  # another process has just moved it
                path.rename(before[-1])
    for old in before:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
