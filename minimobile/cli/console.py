"""Everything that the command line says: tables and JSON on stdout, notes, errors and progress bars on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from minimobile import tables
from minimobile.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Item = TypeVar("Item")

STDOUT = "standard output"
BETWEEN = 2  # columns of a table
_HEAD = "segmentation_head."  # abbreviated, so that a row fits a terminal of 80 columns


def prepare_streams() -> None:
    """Make stdout and stderr take whatever is written to them.

    Characters that a terminal cannot show are escaped; a stream that was closed before we began swallows everything.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def naming_stdout() -> Iterator[None]:
    """Have a failure to write say that it was stdout which could not be written, unless its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from None


def abandon_stdout() -> None:
    """Send to nowhere what stdout still holds: it cannot be written, and trying once more at exit would complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@naming_stdout()
def write_text(text: str) -> None:
    """Write one line to stdout."""
    _console().print(printable(text), soft_wrap=True)


class TableWriter:
    """Writes a table to stdout, a few rows at a time. A column is as wide as what has been written so far asks for.

    A column whose name ends in "#" holds numbers: it is set flush right and never wrapped. On a terminal the table
    keeps to its width; in a file or a pipe nothing is cut or folded.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = [name.removesuffix("#") for name in columns]
        self._are_numbers = [name.endswith("#") for name in columns]
        self._widths = self._fitted = [0] * len(columns)
        self._has_header = False

    def write(self, rows: Iterable[Sequence[object]]) -> None:
        """Write rows, the first time below the names of the columns."""
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table

        lines = [[printable(cell) for cell in row] for row in rows]
        sizes = [[cell_len(cell) for cell in line] for line in (self._names, *lines)]
        widest = [max(column) for column in zip(self._widths, *sizes, strict=True)]
        if widest != self._widths:
            self._widths = widest
            self._fitted = self._fit()
        if self._fitted == self._widths:
            # What Rich would write: a picture's rows in a twentieth of its millisecond, and the same by every release.
            head = "" if self._has_header else self._head(sizes[0])
            self._has_header = True
            write_now(head + "".join(map(self._join, lines, sizes[1:])))
            return
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), show_header=not self._has_header
        )
        for name, is_number, width in zip(self._names, self._are_numbers, self._fitted, strict=True):
            side: Literal["right", "left"] = "right" if is_number else "left"
            table.add_column(name, justify=side, no_wrap=is_number, overflow="fold", width=width)
        for line in lines:
            table.add_row(*line)
        self._has_header = True
        _write_lines(table)

    @naming_stdout()  # Rich writes to it, though nothing, while its output is captured
    def _head(self, sizes: Sequence[int]) -> str:
        """Return the names of the columns and the rule below them."""
        console = _console()
        rule = "-" if console.options.ascii_only else "─"
        with console.capture() as captured:
            console.print(self._join(self._names, sizes), style="bold", end="", soft_wrap=True)
        return f"{captured.get()}{rule * (sum(self._widths) + BETWEEN * (len(self._widths) - 1))}\n"

    def _join(self, line: Sequence[str], sizes: Sequence[int]) -> str:
        """Return a row as a line; `sizes` is how many columns of the terminal each cell takes."""
        gaps = [" " * (width - size) for width, size in zip(self._widths, sizes, strict=True)]
        cells = zip(line, gaps, self._are_numbers, strict=True)
        joined = (" " * BETWEEN).join(gap + cell if is_number else cell + gap for cell, gap, is_number in cells)
        return f"{joined.rstrip()}\n"

    def _fit(self) -> list[int]:
        """Return the widths as the terminal has room for them: the widest column of text gives way first."""
        widths = list(self._widths)
        excess = sum(widths) + len(widths) * BETWEEN - BETWEEN - _console().width
        texts = [index for index, is_number in enumerate(self._are_numbers) if not is_number]
        while excess > 0 and texts and max(widths[index] for index in texts) > 1:
            widths[max(texts, key=widths.__getitem__)] -= 1
            excess -= 1
        return widths


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Write a whole table to stdout, as `TableWriter` does, under its title."""
    for line in title.splitlines() if title else ():
        write_text(line)
    TableWriter(columns).write(rows)


def write_rows(table: tables.Table, notes_apart: bool = False) -> None:
    """Write a table, one of layers where its first column says so, and its notes below, apart or not."""
    if table.columns[0] == "layer":
        write_layer_table(table.columns[1:], table.rows, table.title)
    else:
        write_table(table.columns, table.rows, table.title)
    if notes_apart:
        write_blank()
    for line in table.notes:
        write_text(line)


def write_layer_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
    """Write a table whose rows begin with the name of a layer; `columns` are the others."""
    if any(str(row[0]).startswith(_HEAD) for row in rows):
        title = f"{title}\n(head. is {_HEAD})"
    short = [(str(row[0]).replace(_HEAD, "head."), *row[1:]) for row in rows]
    write_table(("layer", *columns), short, title)


def write_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Write pairs of a word and what there is to say of it, one to a line, to stdout.

    On a terminal long texts are wrapped beside their word; in a file or a pipe each is one line.
    """
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for word, text in facts:
        table.add_row(word, printable(text))
    _write_lines(table)


@naming_stdout()
def write_blank() -> None:
    """Write an empty line to stdout, between two tables."""
    sys.stdout.write("\n")


@naming_stdout()
def write_json(document: Any) -> None:
    """Write one JSON document to stdout; a number that JSON cannot hold (nan, inf) becomes null."""
    sys.stdout.write(encode_json(document) + "\n")


def encode_json(document: Any) -> str:
    """Return JSON for people to read, too; a number that JSON cannot hold (nan, inf) becomes null."""
    return json.dumps(_finite(document), indent=2)


@naming_stdout()
def write_now(text: str) -> None:
    """Write to stdout and have whoever reads it see it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """Write one line to stderr for the person who waits."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def report_error(text: object) -> None:
    """Write `error: <sentence>` to stderr, after what stdout already holds."""
    try:
        sys.stdout.flush()
    except OSError:  # one error is enough
        abandon_stdout()
    note(f"error: {text}")


def track(items: Sequence[Item], description: str, beside_rows: bool = False) -> Iterator[Item]:
    """Yield the items; where stderr is a terminal and there are several, with a progress bar.

    There is none where rows come on a terminal meanwhile (`beside_rows`): they show the progress, and a bar would stand
    in their way.
    """
    if len(items) < 2 or not sys.stderr.isatty() or (beside_rows and sys.stdout.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as track_with_bar

    yield from track_with_bar(items, description, console=Console(stderr=True), transient=True)


@naming_stdout()  # Rich writes what stdout still holds, too
def _write_lines(table: Table) -> None:
    console = _console()
    with console.capture() as captured:
        console.print(table)
    write_now("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _console() -> Console:
    from rich.console import Console

    is_free_width = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(markup=False, highlight=False, emoji=False, width=1000 if is_free_width else None)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
