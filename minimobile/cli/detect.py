"""`minimobile detect`: pictures to objects and their boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from minimobile.cli import console, pictures, targets
from minimobile.cli.options import Force, Format, OutputFormat, Pictures, RequiredModel, path_option
from minimobile.cli.rows import write_rows
from minimobile.errors import InputError


def detect(
    images: Pictures,
    model: RequiredModel,
    threshold: Annotated[float, typer.Option(min=0, max=1, metavar="T", help="What a score has to be above.")] = 0.5,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="At most so many objects a picture.")
    ] = None,
    out: Annotated[
        Path | None,
        path_option(
            "--out",
            metavar="DIR",
            help="A folder for NAME.detections.png, each picture with its boxes; made if missing. The folder it stands "
            "in must exist.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Find objects: names, scores, boxes in pixels, best first.

    The whole picture is brought to the network's input size, as its school does. Classes without a name ("???") are
    not shown. With --out, boxes are drawn on copies of the pictures; those of one name get -2, -3, ... behind it.
    """
    from minimobile.cli.models import open_model
    from minimobile.cli.segment import choose_names
    from minimobile.imaging.box_drawing import draw_boxes
    from minimobile.imaging.detections import check_threshold
    from minimobile.imaging.drawing import encode_png
    from minimobile.imaging.pictures import open_image
    from minimobile.models.detection import find_objects
    from minimobile.storage.files import check_destination, write_together

    check_threshold(threshold, "--threshold")
    if out is not None:
        targets.check_folder("--out", out)
    paths = pictures.expand_folders(images, out)
    network = open_model(model, "ObjectDetection", len(paths))
    different = list(dict.fromkeys(paths))
    names = dict(zip(different, choose_names(different), strict=True))
    inputs = {path.resolve() for path in different}

    def look(path: Path) -> pictures.Row:
        file = None if out is None else out / f"{names[path]}.detections.png"
        if file is not None and out is not None:
            if file.resolve() in inputs:
                raise InputError(
                    f"{path}: its result would overwrite {file}, which is one of the pictures; choose another --out"
                )
            if out.is_dir():
                check_destination(file, overwrite=force)
        photo = open_image(path)
        found = find_objects(network, photo, threshold)[:top]
        row: dict[str, Any] = {"detections": found}
        if file is not None and out is not None:
            content = encode_png(draw_boxes(photo, found))
            targets.make_folder(out)
            write_together({file: content}, overwrite=force)
            row["drawing"] = str(file)
        return row

    tally = pictures.Tally()
    rows = tally.watch(pictures.work_through(paths, "detecting", look))
    write_rows(rows, output_format, ("picture", "label", "score#", "xmin#", "ymin#", "xmax#", "ymax#"), _describe)
    if tally.good and out is not None and output_format is Format.TABLE:
        console.write_text(f"wrote pictures with boxes of {tally.good} of {len(paths)} to {out}")
    raise typer.Exit(tally.settle())


def _describe(row: pictures.Row) -> Iterator[tuple[object, ...]]:
    if not row["detections"]:
        yield "nothing above the threshold", "", "", "", "", ""
    for found in row["detections"]:
        sides = (f"{found['box'][name]:.0f}" for name in ("xmin", "ymin", "xmax", "ymax"))
        yield (found["label"], f"{found['score']:.3f}", *sides)
