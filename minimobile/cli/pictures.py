"""The pictures of a command: folders expanded, and one result or one error for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minimobile.cli import console
from minimobile.errors import InputError, MinimobileError

Row = Mapping[str, Any]


def expand_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the paths with every folder replaced by what is called a picture in it (not below it), sorted by name.

    Broken links, pipes and files that cannot be read are among them, to be reported like any bad picture; so is a
    folder without pictures, in its place.
    """
    from minimobile.imaging.folders import list_pictures

    expanded: list[Path] = []
    for path in paths:
        expanded += list_pictures(path) or [path]
    return expanded


def work_through(
    paths: Sequence[Path], describe: str, work: Callable[[Path], Any], keep: Callable[[Path, Any], Row] | None = None
) -> list[Row]:
    """Return `{"image": path, **work(path)}` for every picture, or `{"image": path, "error": sentence}`.

    Several pictures are worked on by as many threads as there are processors. `keep` makes the row of what `work`
    returns; it is called for one picture after the other, in their order. One bad picture does not stop the others;
    anything but a MinimobileError does.
    """
    from minimobile.imaging.folders import is_folder
    from minimobile.models.stream import count_processors, in_order

    def compute(path: Path) -> Any:
        try:
            if is_folder(path):
                raise InputError(f"{path}: expected a picture or a folder of pictures, got {_describe_folder(path)}")
            return work(path)
        except MinimobileError as error:
            return error

    rows: list[Row] = []
    threads = min(count_processors(), len(paths))
    for path, made in zip(console.track(paths, describe), in_order(compute, paths, threads), strict=True):
        try:
            if isinstance(made, MinimobileError):
                raise made
            rows.append({"image": str(path), **(made if keep is None else keep(path, made))})
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


def _describe_folder(path: Path) -> str:
    try:
        next(path.iterdir(), None)
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    return "a folder with none"
