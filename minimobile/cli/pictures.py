"""The pictures of a command: folders expanded, and one result or one error for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minimobile.cli import console
from minimobile.errors import InputError, MinimobileError

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

Row = Mapping[str, Any]


def expand_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the paths with every folder replaced by the pictures in it (not below it), sorted by name.

    A folder without pictures stays in the list, to be reported in its place.
    """
    expanded: list[Path] = []
    for path in paths:
        expanded += _pictures_in(path) or [path]
    return expanded


def work_through(paths: Sequence[Path], describe: str, work: Callable[[Path], Row]) -> list[Row]:
    """Return `{"image": path, **work(path)}` for every picture, or `{"image": path, "error": sentence}`.

    One bad picture does not stop the others; anything but a MinimobileError does.
    """
    rows: list[Row] = []
    for path in console.track(paths, describe):
        try:
            if path.is_dir():
                raise InputError(f"{path}: expected a picture or a folder of pictures, got a folder with none")
            rows.append({"image": str(path), **work(path)})
        except MinimobileError as error:
            rows.append({"image": str(path), "error": str(error)})
    return rows


def shorten_error(row: Row) -> str:
    """Return what went wrong with a picture, for a table that names the picture beside it."""
    return f"error: {row['error'].removeprefix(row['image'] + ': ')}"


def settle(rows: Sequence[Row]) -> int:
    """Say on stderr what failed and return the exit code: 0, or 1 where any picture failed."""
    errors = [row["error"] for row in rows if "error" in row]
    if errors and len(errors) == len(rows):
        for error in errors:
            console.report_error(error)
    elif errors:
        console.report_error(f"{len(errors)} of {len(rows)} pictures failed")
    return 1 if errors else 0


def _pictures_in(path: Path) -> list[Path]:
    try:
        return sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix.lower() in PICTURE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
        )
    except OSError:
        return []
