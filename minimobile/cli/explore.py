"""`minimobile explore`: one page of HTML that shows a run, down to one product."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from minimobile.cli import console, targets
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_argument, path_option
from minimobile.errors import InputError


def explore(
    source: Source,
    photo: Annotated[Path, path_argument(metavar="PHOTO", help="One picture.", show_default=False)],
    out: Annotated[Path, path_option("--out", metavar="FILE", help="The page, an .html file. Its folder must exist.")],
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Make a page on which a run can be clicked and changed.

    The page is one file, with the weights in it: it opens from disk, loads nothing, and computes the network itself, to
    the bits of this engine. Photograph, layers, channels, any value as its sum, and the answer.
    """
    from minimobile.cli.models import open_model

    targets.check_target("--out", out, targets.PAGE_SUFFIXES, force)
    if photo.is_dir():
        raise InputError(f"{photo}: expected one picture to explore, got a folder")
    network = open_model(source)

    from minimobile.explorer.explore import explore as make_page

    page = make_page(network, photo)
    page.save(out, overwrite=force)
    if output_format is Format.JSON:
        console.write_json({"image": str(photo), "page": str(out), "bytes": len(page.html.encode())})
    else:
        console.write_text(f"wrote {out} ({len(page.html.encode()) / 1e6:.1f} MB): open it in a browser")
