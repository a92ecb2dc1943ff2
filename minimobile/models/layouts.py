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
_ENDING = re.compile(r"\.(?!v?\d)[a-z][a-z0-9]{0,9}")  # a file's; the dot of mobilenet_v2_1.0_224 begins none, nor .v2
_ALIKE, _SHORTEST = 0.7, len(".tfl")  # difflib's ratio: .tfilte, .lite, .onx and .hdf are misspelt, .hf is not


def choose_layout(destination: Path) -> str:
    """Return `NATIVE` for a name ending in .h5 or .hdf5, `TFLITE` for .tflite, `ONNX` for .onnx, else `DIRECTORY`.

    Raises InputError for a name with any other file's ending, unless a directory has it.

    >>> choose_layout(Path("net.h5")), choose_layout(Path("mobilenet_v2_1.0_224")), choose_layout(Path("net.v2"))
    ('native HDF5 file', 'Hugging Face directory', 'Hugging Face directory')
    """
    suffix = destination.suffix
    if suffix.lower() in LAYOUTS:
        return LAYOUTS[suffix.lower()]
    if destination.is_dir() or not _ENDING.fullmatch(suffix.lower()):
        return DIRECTORY
    raise InputError(
        f"{destination}: expected a name ending in .h5 (native file), .tflite or .onnx, or a directory (Hugging Face "
        f"layout) without a suffix, or one that exists, got the suffix {suffix!r}{_suggest(destination)}"
    )


def refuse_foreign(destination: Path) -> None:
    """Raise InputError for a file's name whose suffix is another format's, or nearly one of ours."""
    is_ours = destination.suffix.lower() in LAYOUTS
    hint = "" if is_ours else _suggest(destination)
    if hint or (has_file_ending(destination.name) and not is_ours):
        raise InputError(
            f"{destination}: expected a name ending in .h5, .tflite or .onnx, got {destination.suffix!r}{hint}"
        )


def _suggest(destination: Path) -> str:
    """Return what to say of a suffix that is nearly one of ours, which it is not."""
    suffix = destination.suffix.lower()
    is_ending = len(suffix) >= _SHORTEST and _ENDING.fullmatch(suffix)
    meant = difflib.get_close_matches(suffix, LAYOUTS, n=1, cutoff=_ALIKE) if is_ending else ()
    return "".join(f"; did you mean {destination.stem}{each}?" for each in meant)
