"""`minimobile classify`: pictures to labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minimobile.cli import console, pictures
from minimobile.cli.options import Format, Model, OutputFormat, Pictures


def classify(
    images: Pictures,
    model: Model = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many labels per picture.")] = 5,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Name what each picture shows.

    Lists the K likeliest labels with their probabilities. Exit code 1 where any picture could not be used; the others
    are still classified.
    """
    from minimobile.cli.models import open_model

    paths = pictures.expand_folders(images)
    network = open_model(model, "ImageClassification", len(paths))

    def predict(path: Path) -> pictures.Row:
        import minimobile

        return {"predictions": minimobile.classify(path, model=network, top=top)}

    rows = pictures.work_through(paths, "classifying", predict)
    if output_format is Format.JSON:
        console.write_json(rows)
    else:
        _write_table(rows)
    raise typer.Exit(pictures.settle(rows))


def _write_table(rows: list[pictures.Row]) -> None:
    lines: list[tuple[object, ...]] = []
    for row in rows:
        if "error" in row:
            lines.append((row["image"], pictures.shorten_error(row), "", ""))
        for rank, found in enumerate(row.get("predictions", ())):
            name = row["image"] if rank == 0 else ""
            lines.append((name, found["label"], f"{100 * found['probability']:.2f} %", found["index"]))
    if any("error" not in row for row in rows):
        console.write_table(("picture", "label", "probability#", "class#"), lines)
