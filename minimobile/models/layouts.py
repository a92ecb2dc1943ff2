"""What a destination's name says of what is to be written there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from minimobile.errors import InputError
from minimobile.formats.onnx import write as onnx_file
from minimobile.formats.tflite import tflite
from minimobile.storage.hub import has_file_ending

NATIVE, DIRECTORY, TFLITE, ONNX = "native HDF5 file", "Hugging Face directory", "TFLite file", "ONNX file"
FILES = (NATIVE, TFLITE, ONNX)
LAYOUTS: Mapping[str, str] = {".h5": NATIVE, ".hdf5": NATIVE, tflite.SUFFIX: TFLITE, onnx_file.SUFFIX: ONNX}
"""The layout of a file by its name's suffix."""
_VERSION = re.compile(r"\.v?\d\w*")  # as in mobilenet_v2_1.0_224
_ALIKE, _SHORTEST = 0.7, len(".tfl")  # difflib's ratio: .tfilte, .lite, .onx and .hdf are misspelt, .hf a folder's


def choose_layout(destination: Path) -> str:
    """Return `NATIVE` for a name ending in .h5 or .hdf5, `TFLITE` for .tflite, `ONNX` for .onnx, else `DIRECTORY`.

    Raises InputError for a name with another file's ending, or with one of these misspelt, unless it is a directory's.
    """
    suffix = destination.suffix
    if suffix.lower() in LAYOUTS:
        return LAYOUTS[suffix.lower()]
    if destination.is_dir():
        return DIRECTORY
    meant = find_misspelt(destination)
    if meant is None and not has_file_ending(destination.name):
        return DIRECTORY
    hint = "" if meant is None else f"; did you mean {destination.stem}{meant}?"
    raise InputError(
        f"{destination}: expected a name ending in .h5 (native file), .tflite or .onnx, or a directory without a "
        f"suffix (Hugging Face layout), got the suffix {suffix!r}{hint}"
    )


def find_misspelt(destination: Path) -> str | None:
    """Return the suffix of a file of ours that a name's own is nearly, None where it is one, or like none.

    >>> find_misspelt(Path("net.tfilte")), find_misspelt(Path("net.tflite")), find_misspelt(Path("mobilenet_v2_1.0"))
    ('.tflite', None, None)
    """
    suffix = destination.suffix.lower()
    if suffix in LAYOUTS or len(suffix) < _SHORTEST or _VERSION.fullmatch(suffix):
        return None
    return next(iter(difflib.get_close_matches(suffix, LAYOUTS, n=1, cutoff=_ALIKE)), None)


def refuse_misspelt(destination: Path) -> None:
    """Raise InputError for a file's name whose suffix is nearly one of ours."""
    meant = find_misspelt(destination)
    if meant is not None:
        raise InputError(
            f"{destination}: expected a name ending in .h5, .tflite or .onnx, got {destination.suffix!r}; did you mean "
            f"{destination.stem}{meant}?"
        )
