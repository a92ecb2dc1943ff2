"""`minimobile detect`: pictures to objects and their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from minimobile.cli import console, pictures, targets
from minimobile.cli.options import Force, Format, OutputFormat, Pictures, RequiredModel
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
        typer.Option(
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
    paths = pictures.expand_folders(images)
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

    rows = pictures.work_through(paths, "detecting", look)
    if output_format is Format.JSON:
        console.write_json(rows)
    else:
        _write_table(rows, out)
    raise typer.Exit(pictures.settle(rows))


def _write_table(rows: list[pictures.Row], out: Path | None) -> None:
    lines: list[tuple[object, ...]] = []
    for row in rows:
        if "error" in row:
            lines.append((row["image"], pictures.shorten_error(row), "", "", "", "", ""))
        elif not row["detections"]:
            lines.append((row["image"], "nothing above the threshold", "", "", "", "", ""))
        for rank, found in enumerate(row.get("detections", ())):
            sides = (f"{found['box'][name]:.0f}" for name in ("xmin", "ymin", "xmax", "ymax"))
            lines.append((row["image"] if rank == 0 else "", found["label"], f"{found['score']:.3f}", *sides))
    done = sum("error" not in row for row in rows)
    if done:
        console.write_table(("picture", "label", "score#", "xmin#", "ymin#", "xmax#", "ymax#"), lines)
        if out is not None:
            console.write_text(f"wrote pictures with boxes of {done} of {len(rows)} to {out}")
