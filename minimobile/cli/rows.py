"""Rows on stdout as they come: a table whose columns its first rows settle, or the items of one JSON list."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from minimobile.cli import console
from minimobile.cli.options import Format
from minimobile.cli.pictures import Row, shorten_error

Cells: TypeAlias = Iterable[Sequence[object]]

FIRST = 8  # pictures whose rows wait for one another, so that a table's columns fit them


def write_rows(
    rows: Iterable[Row], output_format: Format, columns: Sequence[str], describe: Callable[[Row], Cells]
) -> None:
    """Write the rows of pictures to stdout, each as soon as it is there.

    As a table, a picture has one line for each of `describe(row)`, the cells under the `columns` but the first, where
    its name stands once; a picture that failed says why, and where all did there is no table. As JSON they are one
    list, which is closed only when all are there.
    """
    if output_format is Format.JSON:
        write_json_list(rows)
        return
    writer = console.TableWriter(columns)
    waiting: list[Sequence[object]] = []
    is_any_good = False
    for count, row in enumerate(rows, 1):
        waiting += _lines(row, len(columns), describe)
        is_any_good |= "error" not in row
        if is_any_good and count >= FIRST:
            writer.write(waiting)
            waiting = []
    if is_any_good:
        writer.write(waiting)


def _lines(row: Row, width: int, describe: Callable[[Row], Cells]) -> Cells:
    if "error" in row:
        yield (row["image"], shorten_error(row), *[""] * (width - 2))
        return
    for name, cells in zip(itertools.chain([row["image"]], itertools.repeat("")), describe(row), strict=False):
        yield (name, *cells)


def write_json_list(rows: Iterable[Row]) -> None:
    """Write rows as they come as the items of one JSON list, in the form that `write_json` gives it."""
    lead = "[\n"
    for row in rows:
        console.write_now(lead + textwrap.indent(console.encode_json(row), "  "))
        lead = ",\n"
    console.write_now("[]\n" if lead == "[\n" else "\n]\n")
