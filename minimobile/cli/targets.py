"""The files that a command writes: judged before any work is done for them, and written wholly or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minimobile.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAY_SUFFIXES = (".npz", ".h5")


def check_target(option: str, path: Path, suffixes: Sequence[str], may_replace: bool) -> None:
    """Refuse a name with another suffix, a file in no folder, and one that exists unless it may be replaced."""
    if path.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"{option} {path}: expected a file name ending in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: expected an existing folder to write into, but {path.parent} is none")
    if path.is_dir() or (path.exists() and not may_replace):
        way_out = "is a folder" if path.is_dir() else "exists already; say --force to replace it"
        raise InputError(f"{option} {path}: expected the name of a new file, but it {way_out}")


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Mapping[str, str | int]]
) -> None:
    """Write arrays under their names to an .npz file, or with attributes of each to an .h5 file ("" is the whole)."""
    import numpy as np

    from minimobile.formats.files import write_whole
    from minimobile.formats.guarded_hdf5 import write_hdf5

    if path.suffix.lower() == ".h5":
        write_hdf5(path, arrays, attributes)
        return
    with write_whole(path) as temporary, temporary.open("xb") as file:
        np.savez(file, allow_pickle=False, **arrays)
