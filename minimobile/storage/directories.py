"""A directory of files that belong together: written so that no mixture of old and new files is taken for a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.storage.files import check_destination


@contextmanager
def write_directory(directory: Path, key: str, others: Sequence[str]) -> Iterator[Path]:
    """Yield an empty folder to write into, and bring its files to `directory` once all of them are on the disk.

    A new directory appears whole or not at all. Of an existing one the files `key` and `others` are replaced (removed
    where no new one has the name), the rest stays. `key` is the file without which nobody takes the others for a model:
    it goes first and comes last, so that a process killed in between leaves nothing that loads. After any error the
    directory is as it was. Raises FormatError where it cannot be written.
    """
    is_new = not directory.exists()
    for name in () if is_new else (key, *others):
        check_destination(directory / name, overwrite=True)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{directory}: cannot be made ({error.strerror}: {error.filename})") from error
    from tempfile import TemporaryDirectory  # which takes a while, and reading needs none

    try:
        # In an existing directory, for it may be a file system of its own, or stand in a folder that is read-only.
        with TemporaryDirectory(dir=directory.parent if is_new else directory, prefix=".minimobile-") as folder:
            staging = Path(folder) / "new"
            staging.mkdir()
            try:
                yield staging
            except FormatError as error:
                raise FormatError(str(error).replace(str(staging), str(directory))) from error
            if is_new:
                staging.rename(directory)
            else:
                _replace_files(staging, directory, Path(folder) / "old", key, others)
    except OSError as error:
        raise FormatError(f"{directory}: cannot be written ({error.strerror}); nothing was changed") from error


def make_directory(directory: Path) -> Path:
    """Make a directory, and those above it, where it is missing; return it. Raises FormatError where that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{directory}: the directory cannot be made ({error.strerror})") from error
    return directory


def _replace_files(staging: Path, directory: Path, attic: Path, key: str, others: Sequence[str]) -> None:
    attic.mkdir()
    outgoing = [directory / name for name in (key, *others)]
    incoming = sorted(staging.iterdir(), key=lambda path: path.name == key)
    moves = [(path, attic / path.name) for path in outgoing if path.exists() or path.is_symlink()]
    moves += [(path, directory / path.name) for path in incoming]
    with contextlib.ExitStack() as undo:
        for old, new in moves:
            old.replace(new)
            undo.callback(new.replace, old)
        undo.pop_all()
