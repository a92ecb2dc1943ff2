"""Files as the readers and writers need them: regular, within a size limit, and written wholly or not at all.

Paths are judged as they were given, never after following links, so that the hub's cache of links works.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minimobile.arguments import read_flag
from minimobile.errors import FormatError, InputError, MissingError
from minimobile.storage.temporary import remove_file, temporary_file

_NOT_IN_A_NAME = re.compile(r'[\\/:*?"<>|]')  # of a file, on one system or another
_LONGEST_NAME = 255
SPARE_BYTES = 64 * 2**20  # readers may take the size of the file and this much memory, and no more


def user_path(given: str | Path, what: str = "path") -> Path:
    """Return what a user names as a path, with ~ for a home; raise our own errors for what can be none.

    `what` names the argument. InputError: it is no text and no path; MissingError: no file can have that name.
    """
    if not isinstance(given, str | Path):
        raise InputError(f"{what}: expected a path, got {type(given).__name__}")
    if given == "":
        raise InputError(f"{what}: expected a path, got an empty text")
    if "\0" in str(given):
        raise MissingError(f"{str(given)[:200]!r}: no such file or directory (no name holds a NUL character)")
    try:
        path = Path(given).expanduser()
        path.lstat()
    except RuntimeError:
        raise MissingError(
            f"{given}: no such file or directory; there is no user whose home ~ could stand for (a file of "
            f"that name is ./{given})"
        ) from None
    except UnicodeEncodeError:
        raise MissingError(f"{given}: no such file or directory (no name holds half a character)") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise MissingError(f"{str(given)[:200]!r}...: no such file or directory (the name is too long)") from None
    return path


def regular_file_size(path: Path) -> int:
    """Return the size in bytes of the regular file at `path`, and refuse what is absent, a directory, pipe or device.

    A pipe has to be refused before it is opened: opening one waits for its other end for ever.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            hint = "; the link points to a file that is not there" if path.is_symlink() else ""
            raise MissingError(f"{path}: no such file or directory{hint}") from None
        raise FormatError(f"{path}: cannot be read ({_reason(error)})") from None
    if stat.S_ISDIR(status.st_mode):
        unreadable = "" if os.access(path, os.R_OK | os.X_OK) else " that cannot be read"
        raise FormatError(f"{path}: expected a file, found a directory{unreadable}")
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path}: expected a regular file, found a pipe, socket or device")
    return status.st_size


def path_beside(folder: Path, name: object, what: str) -> Path:
    """Return the path of a file that a model names as its own: in its `folder` or below it, in any script.

    It is no link, but for the hub's cache: there every file of a snapshot is one into the same repository's blobs.
    Whether there is such a file is seen when it is opened. Raises FormatError, which begins with `what`, for any other
    place.
    """
    parts = [part for part in name.split("/") if part != "."] if isinstance(name, str) else []
    if not parts or not all(map(_is_name, parts)):
        raise FormatError(f"{what}: expected the name of a file in the model's own folder, found {repr(name)[:80]}")
    path = folder
    for part in parts:
        path = path / part
        try:
            is_link = stat.S_ISLNK(path.lstat().st_mode)
        except OSError:  # missing: said when it is opened
            break
        if is_link and not (path == folder.joinpath(*parts) and _is_blob_of_snapshot(path)):
            raise FormatError(
                f"{what}: expected {str(name)[:80]} to be a file in the model's own folder, found a link, which is "
                "only followed from a snapshot of the hub's cache to that repository's blobs; put the file itself there"
            )
    return folder.joinpath(*parts)


def _is_name(part: str) -> bool:
    """Say whether a part of a path is the name of a file or folder, and a way nowhere else on any system."""
    is_short = 0 < len(part) <= _LONGEST_NAME
    return is_short and part != ".." and part.isprintable() and not _NOT_IN_A_NAME.search(part)


def _is_blob_of_snapshot(link: Path) -> bool:
    """Say whether a link in REPOSITORY/snapshots/REVISION, or below, leads to a file of REPOSITORY/blobs in the end."""
    try:
        folder, target = link.parent.resolve(), link.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return False
    above = folder.parents
    snapshots = next((place for place in above if place.name == "snapshots"), None)
    return snapshots is not None and target.parent == snapshots.parent / "blobs"


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a failure to open or read it becomes a FormatError."""
    regular_file_size(path)
    try:
        with path.open("rb") as file:
            yield file
    except MissingError:  # an OSError, too, of another file
        raise
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({_reason(error)})") from error


def read_start(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of a regular file, fewer where it is shorter."""
    with open_regular(path) as file:
        return file.read(count)


def read_limited(path: Path, limit: int) -> bytes:
    """Return all bytes of a regular file, and refuse one of more than `limit` bytes before reading it."""
    size = regular_file_size(path)
    if size > limit:
        raise FormatError(f"{path}: expected at most {limit} bytes, found {size}")
    with open_regular(path) as file:
        return file.read(size)  # not the limit: room for all of that would be taken


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where no file may be written: the one rule of everything that writes.

    The folder that it stands in has to exist; a file that exists is replaced only where `overwrite` says so; and what
    is no regular file (a folder, a link, a pipe, a device) never is. Raises InputError.
    """
    read_flag(overwrite, "overwrite")
    try:
        has_folder = path.absolute().parent.is_dir()
        mode = path.lstat().st_mode if has_folder else 0
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({_reason(error)})") from None
    if not has_folder:
        raise InputError(f"{path}: expected an existing folder to write into, but {path.parent} is none")
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: expected a file, found a directory of that name")
    if stat.S_ISLNK(mode):
        raise InputError(f"{path}: is a link, which is never replaced; name what it points to")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a pipe, socket or device, which is never replaced; name a file")
    if not overwrite:
        raise InputError(
            f"{path}: expected the name of a new file, but it exists; --force (overwrite=True) replaces it"
        )


def check_apart(source: Path, *targets: Path) -> None:
    """Refuse to write over what is read, which losing a bit would take away for good. Raises InputError."""
    for target in targets:
        if source.exists() and target.exists() and source.samefile(target):
            raise InputError(f"{target}: expected a destination apart from the source, found the source itself")


@contextmanager
def write_whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and give it the name `path` once everything is on the disk.

    Whatever goes wrong before that, `path` is as it was and the temporary file is gone; that of a process that was
    killed goes when `path` is written the next time. Where a file may be written, `check_destination` says.
    """
    check_destination(path, overwrite=overwrite)
    try:
        with temporary_file(path) as temporary:
            yield temporary
            _sync_file(temporary)
            check_destination(path, overwrite=overwrite)  # once more, for somebody else may have been quicker
            temporary.replace(path)
            _sync_directory(path.parent)
    except MissingError:  # an OSError, too, of another file
        raise
    except OSError as error:
        raise FormatError(f"{path}: cannot be written ({_reason(error)}); nothing was changed") from error


def write_whole_bytes(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write `content` to `path`, wholly or not at all. A file that holds these very bytes is left as it is."""
    check_destination(path, overwrite=True)
    if path.exists() and path.stat().st_size == len(content) and read_limited(path, len(content)) == content:
        return
    with write_whole(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def write_together(contents: Mapping[Path, bytes], *, overwrite: bool) -> None:
    """Write several files, all of them or none: those that were there before are back where one cannot be written."""
    with contextlib.ExitStack() as rubbish:
        try:
            for path in contents:
                check_destination(path, overwrite=overwrite)
            written = {path: rubbish.enter_context(temporary_file(path)) for path in contents}
            for path, temporary in written.items():
                temporary.write_bytes(contents[path])
                _sync_file(temporary)
            with contextlib.ExitStack() as undo:
                for path, temporary in written.items():
                    if path.exists():
                        aside = path.with_name(f".{path.name[:50]}.{os.urandom(6).hex()}.tmp")
                        path.replace(aside)
                        rubbish.callback(remove_file, aside)  # by nobody else: it is the user's
                        undo.callback(aside.replace, path)
                    temporary.replace(path)
                    undo.callback(path.unlink, missing_ok=True)
                undo.pop_all()
        except OSError as error:
            names = " and ".join(map(str, contents))
            raise FormatError(f"{names}: cannot be written ({_reason(error)}); nothing was changed") from error


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a directory cannot be opened, and the rename is durable by itself
    with contextlib.suppress(OSError):  # the file has its name and is whole; not every file system syncs directories
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())
