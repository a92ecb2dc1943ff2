"""`minimobile convert`: a model of any known format to our native file or the Hugging Face layout."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minimobile.cli import console
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_argument
from minimobile.errors import InputError


class Dtype(StrEnum):
    """How weights are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def convert(
    source: Source,
    destination: Annotated[
        Path,
        path_argument(
            metavar="DST",
            help="NAME.h5 for the native file; NAME.tflite or NAME.onnx; a directory for the Hugging Face layout. "
            "The folder it stands in must exist.",
            show_default=False,
        ),
    ],
    dtype: Annotated[Dtype, typer.Option(help="How a file stores weights; float16 halves it.")] = Dtype.FLOAT32,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Convert a model to another format.

    DST is one native HDF5 file, a TFLite or ONNX file, or a directory that transformers reads too. Weights are kept as
    they are, without loss (unless float16 is asked for; a TFLite file has batch norm folded into them), and DST
    appears whole or not at all.
    """  # fmt: skip
    from minimobile.models import conversion
    from minimobile.models.conversion_report import list_facts
    from minimobile.models.layouts import choose_layout

    try:
        choose_layout(destination)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    report = conversion.convert(source, destination, dtype=dtype.value, overwrite=force)
    if output_format is Format.JSON:
        console.write_json(report.to_dict())
    else:
        console.write_facts(list_facts(report))
    for note in report.notes:
        console.note(f"note: {note}")
