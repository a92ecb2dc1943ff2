"""The pictures that a folder stands for: one rule for every command, and for those who call the library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from minimobile.errors import InputError
from minimobile.imaging.pictures import PICTURE_SUFFIXES

HIDDEN = "."
"""What names begin with that are passed over, of files and folders: a Mac writes `._cat.jpg` beside a picture."""
HIDDEN_FOLDERS = (HIDDEN, "_")
"""The same of folders: a table keeps its masks in those with an underscore. (Cameras write pictures called _DSC1.)"""

Identity = tuple[int, int]


def list_pictures(path: Path, besides: Path | None = None) -> list[Path]:
    """Return what `walk_pictures` finds in a folder, sorted by name; none for what is no folder.

    `besides` is a folder where results go: what is in it is no picture to begin with, unless it is `path` itself.
    """
    if not is_folder(path):
        return []
    real = None if besides is None else os.path.realpath(besides)
    return [Path(name) for name in sorted(walk_pictures(str(path), real))]


def walk_pictures(folder: str, besides: str | None = None) -> Iterator[str]:
    """Yield what is called a picture in a folder and in those below it but `besides`, in no order.

    Hidden files and folders are passed over. Links to folders are followed, but not back into one of those above.
    Broken links, pipes, and files that cannot be read are among the pictures, and a folder that cannot be listed stands
    for itself: who opens it says why.
    """
    waiting: list[tuple[str, tuple[Identity, ...]]] = [(folder, ())]  # no recursion: they may lie thousands deep
    while waiting:
        place, above = waiting.pop()
        try:
            status = os.stat(place)  # noqa: PTH116  # as all below, of a million names
            identity = (status.st_dev, status.st_ino)
            if identity in above and status.st_ino:  # some file systems have no such numbers
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        if not entry.name.startswith(HIDDEN_FOLDERS) and os.path.realpath(entry.path) != besides:
                            waiting.append((entry.path, (*above, identity)))
                    elif is_picture(entry.name):
                        yield entry.path
        except (OSError, ValueError):
            yield place


def is_picture(path: str) -> bool:
    """Tell whether a file of a folder or bucket, by its path from there with /, is a picture to `walk_pictures`.

    >>> is_picture("2019/_DSC0001.JPG"), is_picture("2019/._cat.jpg"), is_picture("table/_mask/part-0001.png")
    (True, False, False)
    """
    *folders, name = path.split("/")
    is_hidden = name.startswith(HIDDEN) or any(folder.startswith(HIDDEN_FOLDERS) for folder in folders)
    return not is_hidden and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder."""
    try:
        return path.is_dir()
    except OSError:  # what it is cannot be told; opening it will say why
        return False


def refuse_folder(path: Path) -> None:
    """Raise InputError for a folder in which `list_pictures` has found none."""
    if not is_folder(path):
        return
    try:
        next(path.iterdir(), None)
        found = "a folder with none in it or below it"
    except OSError as error:
        found = f"a folder that cannot be read ({error.strerror})"
    raise InputError(f"{path}: expected a picture or a folder of pictures, got {found}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: opening it will say why
        return False
