"""The arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def path(given: str | Path) -> Path:
    """Return a path of the command line; an empty text, which Python takes for the folder one is in, is wrong usage."""
    if not str(given):
        raise typer.BadParameter("expected a path, got an empty text")
    return Path(given)


# With a parser of our own, for typer would refuse a path whose file this user may not read: one such picture would stop
# all the others, and a file to be replaced need not be read at all. What cannot be opened is said by who opens it.
path_argument = partial(typer.Argument, parser=path)
path_option = partial(typer.Option, parser=path)


class Format(StrEnum):
    """How a result is written to stdout: a table for people or one JSON document for programs."""

    TABLE = "table"
    JSON = "json"


class FromEnvironment(str):
    """A source that the environment names, so that an error can say so."""

    __slots__ = ()


def _mark(context: typer.Context, parameter: typer.CallbackParam, value: str | None) -> str | None:
    origin = context.get_parameter_source(str(parameter.name))
    return FromEnvironment(value) if value and origin is not None and origin.name == "ENVIRONMENT" else value


_A_MODEL = "A directory, a file of any known format, a hub id, or demo:digits, demo:scenes or demo:boxes."

Pictures = Annotated[
    list[Path],
    path_argument(metavar="IMAGE", help="Pictures, or folders with all pictures below them.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SRC",
        envvar="MINIMOBILE_MODEL",
        help=f"{_A_MODEL} Default: google/mobilenet_v2_1.0_224 through the hub's cache.",
        show_default=False,
        callback=_mark,
    ),
]
RequiredModel = Annotated[
    str,
    typer.Option(
        "--model", metavar="SRC", envvar="MINIMOBILE_MODEL", help=_A_MODEL, show_default=False, callback=_mark
    ),
]
Source = Annotated[str, typer.Argument(metavar="SRC", help=_A_MODEL, show_default=False)]
OutputFormat = Annotated[Format, typer.Option("--format", help="Tables for people, JSON for programs.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace files that exist; what is no file (a link, a pipe, a device) never is."),
]
