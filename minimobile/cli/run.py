"""`minimobile run`: folders of any size to a table in parts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minimobile.cli import console, targets
from minimobile.cli.options import RequiredModel, path_option

if TYPE_CHECKING:
    from minimobile.bulk.run import Progress, Summary

MINUTE = 60.0


class TaskName(StrEnum):
    """What is computed."""

    CLASSIFY = "classify"
    FEATURES = "features"
    SEGMENT = "segment"
    DETECT = "detect"


class TableFormat(StrEnum):
    """The form of the table."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


class EngineName(StrEnum):
    """What computes the parts."""

    LOCAL = "local"
    RAY = "ray"


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="Folders (all below them), pictures, globs, lists (.txt), tables (.csv, .parquet), addresses of "
            "buckets (s3://...), or - for a list on standard input.",
            show_default=False,
        ),
    ],
    task: Annotated[TaskName, typer.Option("--task", help="What to compute.", show_default=False)],
    model: RequiredModel,
    out: Annotated[
        Path,
        path_option(
            "--out",
            metavar="DIR",
            help="The table's folder; made if missing. The folder it stands in must exist.",
            show_default=False,
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="For features: a layer; may be repeated.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="For classify: how many labels per picture.")] = 5,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, metavar="T", help="For detect: what objects must score more than.")
    ] = 0.5,
    overlay: Annotated[bool, typer.Option("--overlay", help="For segment: a picture for people, too.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, metavar="N", help="Pictures at a time; default: one per processor.")
    ] = None,
    rows_per_part: Annotated[int, typer.Option(min=1, metavar="N", help="Pictures per part.")] = 1000,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Compute part numbers I, I + N, I + 2N ...")] = "0/1",
    table_format: Annotated[TableFormat, typer.Option("--format", help="The table's form.")] = TableFormat.PARQUET,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of tables that holds paths or pictures.")
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Decode large JPEGs at a fraction of their size: faster, other pixels.")
    ] = False,
    engine: Annotated[EngineName, typer.Option("--engine", help="What computes the parts.")] = EngineName.LOCAL,
) -> None:
    """Turn folders of any size into a table in parts.

    Run it again and it goes on where it was: a part is there whole or not at all, and its bytes are the same whoever
    computes it. A picture that cannot be read is a row with its error, and the exit code is then 1. Parquet needs the
    extra "bulk", the engine ray the extra "ray"; csv and jsonl need nothing.
    """
    import minimobile

    targets.check_folder("--out", out)
    with _showing_progress() as show:
        summary = minimobile.run(
            sources,
            out,
            task=task.value,
            model=model,
            layers=layer or (),
            top=top,
            threshold=threshold,
            overlay=overlay,
            jobs=jobs,
            rows_per_part=rows_per_part,
            shard=_read_shard(shard),
            table_format=table_format.value,
            column=column,
            draft=draft,
            engine=engine.value,
            progress=show,
        )
    _report(summary)
    raise typer.Exit(1 if summary.errors else 0)


def _read_shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise typer.BadParameter(f"--shard {text}: expected I/N with 0 <= I < N")
    return int(index), int(count)


def _report(summary: Summary) -> None:
    console.write_text(
        f"{summary.folder}: {_count(summary.rows, 'row')} in {_count(summary.parts, 'part')}, {summary.errors} with an "
        f"error; "
        f"{summary.computed} computed now{'' if summary.is_complete else '; parts of other shards are missing'}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@contextmanager
def _showing_progress() -> Iterator[Any]:
    """Yield what is told how far a run is: a bar on a terminal, else a line a minute on stderr."""
    if sys.stderr.isatty():
        yield from _show_bar()
    else:
        yield _Lines()


def _show_bar() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Bar(*columns, TextColumn("{task.fields[errors]}"), console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=None, rate="", errors="")
        start = time.monotonic()

        def show(found: Progress) -> None:
            rate = found.rows / max(time.monotonic() - start, 1e-3)
            bar.update(
                shown, total=found.of_rows, completed=found.rows, rate=f"{rate:.0f}/s", errors=f"{found.errors} errors"
            )

        yield show


class _Lines:
    """Says how far a run is, once a minute."""

    def __init__(self) -> None:
        self._start = self._said = time.monotonic()

    def __call__(self, found: Progress) -> None:
        now = time.monotonic()
        if now - self._said < MINUTE:
            return
        self._said = now
        rate = found.rows / (now - self._start)
        left = (found.of_rows - found.rows) / max(rate, 1e-9) / MINUTE
        console.note(
            f"{found.rows} of {found.of_rows} pictures, {rate:.0f} a second, about {left:.0f} minutes left, "
            f"{found.errors} errors"
        )
