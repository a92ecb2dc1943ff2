"""A directory of files that belong together: written so that no mixture of old and new files is taken for a model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from minimobile.arguments import read_flag
from minimobile.errors import FormatError, InputError, MinimobileError
from minimobile.storage.files import check_destination
from minimobile.storage.temporary import BEGUN, FOLDERS, remove_left_folder, temporary_folder

_NEW, _OLD = "new", "old"  # in a temporary folder; where BEGUN is there, too, the new files are whole, and old ones go


@contextmanager
def write_directory(directory: Path, key: str, others: Sequence[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield an empty folder to write into, and bring its files to `directory` once all of them are on the disk.

    A new directory appears whole or not at all. Of an existing one the files `key` and `others` are replaced (removed
    where no new one has the name), the rest stays. `key` is the file without which nobody takes the others for a model:
    it goes first and comes last, so that a process killed in between leaves nothing that loads: what it had begun, the
    next one to write there finishes. After any error the directory is as it was. Raises FormatError where it cannot be
    written, and, where `overwrite` does not allow to replace anything, InputError as `check_directory` does: also for
    what another process has written meanwhile.

    (To exchange two directories by one rename, Linux's renameat2, would take the files of others along.)
    """
    is_new = not directory.exists()
    _check(directory, (key, *others), overwrite=True)  # what was begun there is finished before anything is refused
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{directory}: cannot be made ({error.strerror}: {error.filename})") from error
    try:
        with contextlib.ExitStack() as stack:
            # In an existing directory, for it may be a file system of its own, or stand in a folder that is read-only.
            folder = stack.enter_context(temporary_folder(directory.parent if is_new else directory, directory))
            with _holding(directory) as is_held:
                _finish(directory, key, others, is_held)
            check_directory(directory, overwrite=overwrite)
            staging = folder / _NEW
            staging.mkdir()
            try:
                yield staging
            except FormatError as error:
                raise FormatError(str(error).replace(str(staging), str(directory))) from error
            if is_new:
                if _appear(staging, directory):
                    return
                folder = stack.enter_context(temporary_folder(directory, directory))
                staging.replace(folder / _NEW)
            with _holding(directory) as is_held:  # one after another: two at once would mix their models
                _finish(directory, key, others, is_held)
                _check(directory, (key, *others), overwrite)
                _replace_files(folder, directory, key, others)
    except OSError as error:
        raise FormatError(f"{directory}: cannot be written ({error.strerror}); nothing was changed") from error


def check_directory(directory: Path, *, overwrite: bool) -> None:
    """Refuse a directory that holds files, unless `overwrite` says that some are replaced. Raises InputError.

    The temporary folders of those who are about to write there, or were, are no files of anybody.
    """
    if read_flag(overwrite, "overwrite") or not directory.is_dir():
        return
    try:
        is_taken = any(not entry.name.startswith(FOLDERS) for entry in directory.iterdir())
    except OSError as error:
        raise InputError(f"{directory}: the directory cannot be read ({error.strerror})") from None
    if is_taken:
        raise InputError(
            f"{directory}: expected a new or empty directory, but it holds files; --force (overwrite=True) replaces "
            "them"
        )


@contextmanager
def refusing_replacement(directory: Path, key: str) -> Iterator[None]:
    """Raise FormatError for a directory without `key` whose files `write_directory` has begun to replace.

    And where it replaces them while the block reads: `key` goes first and comes last, so that what was read between two
    sights of the same `key` is of one model. No lock is taken, for who holds one could keep every reader waiting.
    """
    refuse_begun(directory, key)
    before = _identify(directory / key)
    try:
        yield
    except MinimobileError as error:
        if _is_replaced(directory, key, before):
            raise _replaced(directory) from error
        raise
    if _is_replaced(directory, key, before):
        raise _replaced(directory)


def refuse_begun(directory: Path, key: str) -> None:
    """Raise FormatError for a directory without `key` whose files `write_directory` has begun to replace."""
    for folder in _find_begun(directory) if _identify(directory / key) is None else ():
        raise FormatError(
            f"{directory}: expected a whole model, found one whose replacement was cut short, or goes on; its files "
            f"are there and in {folder} ({_OLD}, {_NEW}), and writing a model there again (--force) puts that right"
        )


def make_directory(directory: Path) -> Path:
    """Make a directory, and those above it, where it is missing; return it. Raises FormatError where that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{directory}: the directory cannot be made ({error.strerror})") from error
    return directory


def _check(directory: Path, names: Sequence[str], overwrite: bool) -> None:
    check_directory(directory, overwrite=overwrite)
    for name in names if directory.exists() else ():
        check_destination(directory / name, overwrite=True)


def _appear(staging: Path, directory: Path) -> bool:
    """Give a folder the name of a new directory; return False where another process has made that meanwhile."""
    try:
        staging.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise
        return False
    return True


def _replace_files(folder: Path, directory: Path, key: str, others: Sequence[str]) -> None:
    staging, attic, begun = folder / _NEW, folder / _OLD, folder / BEGUN
    attic.mkdir()
    try:
        begun.write_bytes("\n".join(path.name for path in staging.iterdir()).encode())
        outgoing = [directory / name for name in (key, *others)]
        incoming = sorted(staging.iterdir(), key=lambda path: path.name == key)
        moves = [(path, attic / path.name) for path in outgoing if path.exists() or path.is_symlink()]
        moves += [(path, directory / path.name) for path in incoming]
        with contextlib.ExitStack() as undo:
            for old, new in moves:
                old.replace(new)
                undo.callback(new.replace, old)
            undo.pop_all()
    finally:  # before anything else of the folder goes: nobody is to finish what is left of it
        with contextlib.suppress(OSError):
            begun.unlink()


def _finish(directory: Path, key: str, others: Sequence[str], is_held: bool) -> None:
    """Bring to an end what processes that are no more had begun here: new files to their places, `key` last.

    What was begun beside a `key` that is there, came no further, or is done, or is older than what another wrote where
    nothing can be held: it goes. Where the directory cannot be held now, the processes are taken to live.
    """
    for folder in _find_begun(directory) if is_held else ():
        staging, attic = folder / _NEW, folder / _OLD
        names = (folder / BEGUN).read_bytes().decode(errors="replace").split("\n")
        if (staging / key).exists() and not (directory / key).exists():  # it goes first and comes last
            outgoing = [name for name in (key, *others) if name not in names or (staging / name).exists()]
            moves = [(directory / name, attic / name) for name in outgoing if (directory / name).exists()]
            incoming = [name for name in (*others, key) if (staging / name).exists()]
            moves += [(staging / name, directory / name) for name in incoming]
            for old, new in moves:
                old.replace(new)
        (folder / BEGUN).unlink()  # from here on any writer may remove what is left
        remove_left_folder(folder)


def _identify(path: Path) -> tuple[int, int, int] | None:
    """Return what another file of this name would differ in; None where there is none.

    Not the number of its inode: file systems in user space may make another one up at every look.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # said by who opens it
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _is_replaced(directory: Path, key: str, before: tuple[int, int, int] | None) -> bool:
    now = _identify(directory / key)
    return now != before or (now is None and bool(_find_begun(directory)))


def _replaced(directory: Path) -> FormatError:
    return FormatError(
        f"{directory}: expected a model that stays as it is while it is read, found one that another process replaced "
        "meanwhile; read it again"
    )


def _find_begun(directory: Path) -> list[Path]:
    found = directory.glob(f"{FOLDERS}*/{BEGUN}")
    return [path.parent for path in found if path.is_file() and not path.parent.is_symlink()]


@contextmanager
def _holding(directory: Path) -> Iterator[bool]:
    """Lock a directory, which the end of the process undoes, for a few renames; yield whether that can be done."""
    handle, is_held = None, False
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):  # there is none yet, it cannot be read, or its file system has no locks
            handle = os.open(directory, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            is_held = True
    try:
        yield is_held
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has the handle, too
            os.close(handle)
