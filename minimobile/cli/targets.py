"""The files that a command writes: judged before any work is done for them, and written wholly or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAY_SUFFIXES = (".npz", ".h5")
PICTURE_SUFFIXES = (".png",)
PAGE_SUFFIXES = (".html", ".htm")


def check_target(option: str, path: Path, suffixes: Sequence[str], overwrite: bool) -> None:
    """Refuse a name with another suffix, and a place where `check_destination` lets nobody write."""
    from minimobile.storage.files import check_destination

    if path.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"{option} {path}: expected a file name ending in {' or '.join(suffixes)}")
    check_destination(path, overwrite=overwrite)


def check_folder(option: str, folder: Path) -> None:
    """Refuse the name of a folder that cannot be made: what it stands in has to exist."""
    from minimobile.errors import InputError
    from minimobile.storage.files import check_destination

    if not folder.is_dir():
        check_destination(folder, overwrite=True)
        if folder.exists():
            raise InputError(f"{option} {folder}: expected a folder to write into, found a file of that name")


def make_folder(folder: Path) -> None:
    """Make a folder that `check_folder` has let pass, when there is something to write into it."""
    from minimobile.errors import FormatError

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise FormatError(f"{folder}: the folder cannot be made ({error.strerror})") from error


def write_arrays(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Mapping[str, str | int]],
    overwrite: bool,
) -> None:
    """Write arrays under their names to an .npz file, or with attributes of each to an .h5 file ("" is the whole)."""
    import numpy as np

    from minimobile.formats.guarded_hdf5 import write_hdf5
    from minimobile.storage.files import write_whole

    if path.suffix.lower() == ".h5":
        write_hdf5(path, arrays, attributes, overwrite=overwrite)
        return
    # Not by np.savez, whose own arguments take names away from layers, and are others in every release of NumPy.
    with write_whole(path, overwrite=overwrite) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
