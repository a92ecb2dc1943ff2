"""`minimobile convert`: a model of any known format to our native file or the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from minimobile.cli import console
from minimobile.cli.options import Source
from minimobile.errors import InputError

NATIVE_SUFFIXES = (".h5", ".hdf5")


def convert(
    source: Source,
    destination: Annotated[
        Path,
        typer.Argument(
            metavar="DST",
            help="NAME.h5 for the native file; a directory for the Hugging Face layout.",
            show_default=False,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what DST already holds.")] = False,
) -> None:
    """Convert a model to another format.

    DST is one native HDF5 file, or a directory that transformers reads too. Weights are kept as they are, without loss.
    """  # fmt: skip
    from minimobile.cli.models import load_model

    is_native = destination.suffix.lower() in NATIVE_SUFFIXES
    if destination.suffix and not is_native and not destination.is_dir():
        raise typer.BadParameter(
            f"{destination}: expected a name ending in .h5 (native file) or a directory without a suffix (Hugging Face "
            f"layout), got the suffix {destination.suffix!r}"
        )
    _refuse_overwriting(destination, is_native, force)
    model = load_model(source)
    if is_native:
        model.save(destination)
    else:
        _save_directory(model, destination)
    console.write_text(f"wrote {destination}")


def _refuse_overwriting(destination: Path, is_native: bool, force: bool) -> None:
    if not destination.exists():
        return
    if destination.is_dir() == is_native:
        expected, found = ("a file", "a directory") if is_native else ("a directory", "a file")
        raise InputError(f"{destination}: expected {expected}, found {found} of that name")
    if not force and (is_native or any(destination.iterdir())):
        raise InputError(f"{destination}: expected a name that is free, found it taken; --force overwrites it")


def _save_directory(model: Any, destination: Path) -> None:
    """Write the files beside `destination` first, so that a failure leaves nothing half done there."""
    if not destination.absolute().parent.is_dir():
        raise InputError(f"{destination}: expected to write into {destination.parent}, which is not a directory")
    with TemporaryDirectory(dir=destination.absolute().parent, prefix=".minimobile-") as staging:
        written = Path(staging) / "model"
        model.save_pretrained(written)
        if not destination.exists():
            written.rename(destination)
            return
        for file in sorted(written.iterdir()):
            file.replace(destination / file.name)
