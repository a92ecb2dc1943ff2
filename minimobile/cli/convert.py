"""`minimobile convert`: a model of any known format to our native file or the Hugging Face layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minimobile.cli import console
from minimobile.cli.options import Force, Format, OutputFormat, Source
from minimobile.errors import InputError

if TYPE_CHECKING:
    from minimobile.models.conversion import ConversionReport


class Dtype(StrEnum):
    """How weights are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def convert(
    source: Source,
    destination: Annotated[
        Path,
        typer.Argument(
            metavar="DST",
            help="NAME.h5 for the native file; NAME.tflite for a TFLite file; a directory for the Hugging Face layout. "
            "The folder it stands in must exist.",
            show_default=False,
        ),
    ],
    dtype: Annotated[Dtype, typer.Option(help="How a file stores weights; float16 halves it.")] = Dtype.FLOAT32,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Convert a model to another format.

    DST is one native HDF5 file, a TFLite file, or a directory that transformers reads too. Weights are kept as they
    are, without loss (unless float16 is asked for; a TFLite file has batch norm folded into them), and DST appears
    whole or not at all.
    """  # fmt: skip
    from minimobile.models import conversion

    try:
        conversion.choose_layout(destination)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    report = conversion.convert(source, destination, dtype=dtype.value, overwrite=force)
    if output_format is Format.JSON:
        console.write_json(report.to_dict())
    else:
        _write_summary(report)
    for note in report.notes:
        console.note(f"note: {note}")


def _write_summary(report: ConversionReport) -> None:
    origin = [report.format, f"dialect {report.dialect}", *([f"by {report.producer}"] if report.producer else [])]
    rows = [
        ("read", report.source),
        ("format", ", ".join(origin)),
        ("network", report.architecture),
        ("mapped", _count(report.mapped, "array")),
    ]
    rows += [("ignored", text) for text in _group(report.ignored)]
    if report.missing:
        became = "; written as zeros" if report.idle else ""
        rows.append(
            ("missing", f"{_count(report.missing, 'weight')} that no output needs{became}: {_list(report.missing)}")
        )
    if report.rounded:
        rows.append(("rounded", f"{_count(report.rounded, 'array')} to {report.dtype}"))
    rows.append(("wrote", report.destination))
    rows.append(("format", f"{report.layout}, {_count(report.written, 'array')}, {report.dtype}"))
    console.write_facts(rows)


def _group(ignored: Mapping[str, str]) -> Iterable[str]:
    names = defaultdict(list)
    for name, reason in ignored.items():
        names[reason].append(name)
    for reason, group in names.items():
        yield f"{len(group)} ({reason}): {_list(group)}"


def _count(items: Iterable[str], noun: str) -> str:
    count = len(list(items))
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _list(names: Iterable[str], shown: int = 2) -> str:
    names = list(names)
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
