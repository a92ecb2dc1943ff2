"""The pictures of a command: folders expanded, and one result or one error for each of them, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minimobile.cli import console
from minimobile.errors import MinimobileError

Row = Mapping[str, Any]


def expand_folders(paths: Iterable[Path], out: Path | None = None) -> list[Path]:
    """Return the paths with every folder replaced by the pictures in it and below it, sorted by name, but not in `out`.

    Broken links, pipes and files that cannot be read are among them, to be reported like any bad picture; so is a
    folder without pictures, in its place.
    """
    from minimobile.imaging.folders import list_pictures

    expanded: list[Path] = []
    for path in paths:
        expanded += list_pictures(path, besides=out) or [path]
    return expanded


def work_through(
    paths: Sequence[Path],
    describe: str,
    work: Callable[[Path], Any],
    keep: Callable[[Path, Any], Row] | None = None,
    are_shown: bool = True,
) -> Iterator[Row]:
    """Yield `{"image": path, **work(path)}` for every picture, or `{"image": path, "error": sentence}`, in their order.

    Several pictures are worked on by as many threads as there are processors, or as MINIMOBILE_NUM_THREADS says, and
    few of them wait for their turn. `keep` makes the row of what `work` returns; it is called for one picture after the
    other, in their order. One bad picture does not stop the others; anything but a MinimobileError does.
    `are_shown` says that stdout has the rows as they come.
    """
    from minimobile.execution.threads import default_thread_count
    from minimobile.imaging.folders import refuse_folder
    from minimobile.models.stream import in_order

    def compute(path: Path) -> Any:
        try:
            refuse_folder(path)
            return work(path)
        except MinimobileError as error:
            return error

    threads = min(default_thread_count(), len(paths))
    tracked = console.track(paths, describe, beside_rows=are_shown)
    for path, made in zip(tracked, in_order(compute, paths, threads), strict=True):
        try:
            if isinstance(made, MinimobileError):
                raise made
            row = {"image": str(path), **(made if keep is None else keep(path, made))}
        except MinimobileError as error:
            row = {"image": str(path), "error": str(error)}
        yield row


def shorten_error(row: Row) -> str:
    """Return what went wrong with a picture, for a table that names the picture beside it."""
    return f"error: {row['error'].removeprefix(row['image'] + ': ')}"


class Tally:
    """Counts the rows that pass, and remembers what went wrong as long as nothing went right."""

    def __init__(self) -> None:
        self.good = self.bad = 0
        self._errors: list[str] = []

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, counted."""
        for row in rows:
            if "error" in row:
                self.bad += 1
                self._errors += [row["error"]] if not self.good else []
            else:
                self.good += 1
                self._errors = []
            yield row

    def settle(self) -> int:
        """Say on stderr what failed and return the exit code: 0, or 1 where any picture failed."""
        for error in dict.fromkeys(self._errors):  # of a folder that cannot be made, all say the same
            console.report_error(error)
        if self.bad and self.good:
            console.report_error(f"{self.bad} of {self.bad + self.good} pictures failed")
        return 1 if self.bad else 0
