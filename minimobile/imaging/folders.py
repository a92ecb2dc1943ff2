"""The pictures in a folder."""

from __future__ import annotations

from pathlib import Path

from minimobile.errors import InputError
from minimobile.imaging.pictures import PICTURE_SUFFIXES


def list_pictures(path: Path) -> list[Path]:
    """Return what is called a picture in a folder (not below it), sorted by name; none where it cannot be read."""
    try:
        return sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix.lower() in PICTURE_SUFFIXES and not entry.name.startswith(".") and not is_folder(entry)
        )
    except (OSError, ValueError):  # no folder, or none that can be read: said when it is its turn
        return []


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
        found = "a folder with none"
    except OSError as error:
        found = f"a folder that cannot be read ({error.strerror})"
    raise InputError(f"{path}: expected a picture or a folder of pictures, got {found}")
