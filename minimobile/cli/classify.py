"""`minimobile classify`: pictures to labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from minimobile.cli import pictures
from minimobile.cli.options import Format, Model, OutputFormat, Pictures
from minimobile.cli.rows import write_rows


def classify(
    images: Pictures,
    model: Model = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many labels per picture.")] = 5,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Name what each picture shows.

    Lists the K likeliest labels with their probabilities, as the pictures are done. Exit code 1 where any picture could
    not be used; the others are still classified.
    """
    from minimobile.cli.models import open_model

    paths = pictures.expand_folders(images)
    network = open_model(model, "ImageClassification", len(paths))

    def predict(path: Path) -> pictures.Row:
        import minimobile

        return {"predictions": minimobile.classify(path, model=network, top=top)}

    tally = pictures.Tally()
    rows = tally.watch(pictures.work_through(paths, "classifying", predict))
    write_rows(rows, output_format, ("picture", "label", "probability#", "class#"), _describe)
    raise typer.Exit(tally.settle())


def _describe(row: pictures.Row) -> Iterator[tuple[object, ...]]:
    for found in row["predictions"]:
        yield found["label"], f"{100 * found['probability']:.2f} %", found["index"]
