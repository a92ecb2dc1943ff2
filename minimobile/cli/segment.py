"""`minimobile segment`: pictures to masks and overlays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minimobile.cli import console, pictures, targets
from minimobile.cli.options import Force, Format, OutputFormat, Pictures, RequiredModel, path_option
from minimobile.cli.rows import write_rows
from minimobile.errors import InputError


class OverlayFormat(StrEnum):
    """The files that an overlay can be."""

    PNG = "png"
    JPEG = "jpeg"


def segment(
    images: Pictures,
    out: Annotated[
        Path,
        path_option(
            "--out",
            metavar="DIR",
            help="The folder to write into; made if missing. The folder it stands in must exist.",
            show_default=False,
        ),
    ],
    model: RequiredModel,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0.0, max=1.0, help="The share of the classes' colours in the overlay.")
    ] = 0.6,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write masks alone.")] = False,
    overlay_format: Annotated[
        OverlayFormat,
        typer.Option("--overlay-format", help="A JPEG (NAME.overlay.jpg) is written faster, and is smaller."),
    ] = OverlayFormat.PNG,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Say what every pixel shows.

    Writes NAME.mask.png and NAME.overlay.png for each picture. The overlay is the picture with its classes' colours, a
    name in each region that has room for it, and a legend below where that fits. The mask is a palette PNG of the
    picture's own size: a pixel's value is its class, its colour PASCAL VOC's for that class. So that it covers the
    whole picture, the picture is resized straight to the network's input size, without the crop of the model's image
    processor, and the logits are resized back before the classes are chosen. DeepLab's own models keep the picture's
    aspect instead, on a canvas. Pictures of one name get -2, -3, ... behind it.
    """
    import minimobile
    from minimobile.cli.models import open_model
    from minimobile.imaging.drawing import encode_jpeg, encode_png
    from minimobile.storage.files import check_destination, write_together

    targets.check_folder("--out", out)
    paths = pictures.expand_folders(images, out)
    network = open_model(model, "SemanticSegmentation", len(paths))
    different = list(dict.fromkeys(paths))
    names = dict(zip(different, choose_names(different), strict=True))
    inputs = {path.resolve() for path in different}
    endings = {"mask": "mask.png"}
    if not no_overlay:
        endings["overlay"] = "overlay.png" if overlay_format is OverlayFormat.PNG else "overlay.jpg"

    def cut_out(path: Path) -> pictures.Row:
        files = {kind: out / f"{names[path]}.{ending}" for kind, ending in endings.items()}
        for file in files.values():
            if file.resolve() in inputs:
                raise InputError(
                    f"{path}: its result would overwrite {file}, which is one of the pictures; choose another --out"
                )
            if out.is_dir():
                check_destination(file, overwrite=force)
        found = minimobile.segment(path, network)
        drawn = {"mask": encode_png(found.mask())}
        if not no_overlay:
            encode = encode_png if overlay_format is OverlayFormat.PNG else encode_jpeg
            drawn["overlay"] = encode(found.overlay(alpha))
        targets.make_folder(out)
        write_together({files[kind]: content for kind, content in drawn.items()}, overwrite=force)
        written = {kind: str(file) for kind, file in files.items()}
        return {**written, "classes": found.shares}

    tally = pictures.Tally()
    rows = tally.watch(pictures.work_through(paths, "segmenting", cut_out))
    write_rows(rows, output_format, ("picture", "label", "share#", "class#"), _describe)
    if tally.good and output_format is Format.TABLE:
        kinds = "masks" if no_overlay else "masks and overlays"
        console.write_text(f"wrote {kinds} of {tally.good} of {len(paths)} pictures to {out}")
    raise typer.Exit(tally.settle())


def choose_names(paths: Iterable[Path]) -> list[str]:
    """Return a file name without suffix for each path: its stem, and -2, -3, ... behind it where that is taken.

    >>> choose_names([Path("a/cat.jpg"), Path("b/cat.png"), Path("dog.png")])
    ['cat', 'cat-2', 'dog']
    """
    stems = [path.stem for path in paths]
    reserved = {stem.casefold() for stem in stems}  # some file systems do not tell Cat from cat
    taken: set[str] = set()
    names = []
    for stem in stems:
        name, count = stem, 1
        while name.casefold() in taken or (count > 1 and name.casefold() in reserved):
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _describe(row: pictures.Row) -> Iterator[tuple[object, ...]]:
    for found in row["classes"]:
        yield found["label"], f"{100 * found['share']:.2f} %", found["index"]
