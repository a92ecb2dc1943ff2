"""The pixels of a PIL image where Pillow holds them: to copy them out takes as long as to resize them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_core = Image.core  # type: ignore[attr-defined]  # rows could begin at multiples of a number, were it told to


class _ArrowArray(ctypes.Structure):
    """`struct ArrowArray` of Arrow's C data interface."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    *((name, ctypes.c_void_p) for name in ("dictionary", "release", "private_data")),
]
_read_capsule = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Memory:
    """Keeps Pillow's memory alive for the array that NumPy makes of it."""

    def __init__(self, capsule: Any, address: int, shape: tuple[int, ...]) -> None:
        self._capsule = capsule
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (address, True)}


def view_pixels(image: Image.Image) -> NDArray[np.uint8] | None:
    """Return the pixels of a decoded "L" or "RGB" image without a copy, or None where they are not in one piece.

    That is so in images beyond Pillow's blocks of 16 MiB and in those that are mapped from a file; and Pillow before
    11.3 does not say where they are.

    Shapes: (h, w, 1), or for RGB (h, w, 4), of which the last of four bytes means nothing; not to be written to.
    """
    channels = {"L": 1, "RGB": 4}.get(image.mode)
    if channels is None or not hasattr(image, "__arrow_c_array__") or _core.get_alignment() != 1:
        return None
    try:
        capsule = image.im.__arrow_c_array__()  # the schema, which the image itself gives as well, is known
    except ValueError:  # what Pillow says where there is more than one block
        return None
    array = _ArrowArray.from_address(_read_capsule(capsule, b"arrow_array"))
    if array.n_children:
        array = array.children[0].contents
    address = array.buffers[1]
    if not address or array.offset or array.length != image.height * image.width * channels:
        return None
    return np.asarray(_Memory(capsule, address, (image.height, image.width, channels)))
