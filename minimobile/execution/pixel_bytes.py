"""Pixel values as the bytes of a picture and what each byte stands for: a network of bytes needs no floats of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from minimobile_kernels.entries import look_up, look_up_pixels


@dataclass(frozen=True, eq=False)
class PixelBytes:
    """The pixel values of one picture: `values[c, picture[c, i, j]]` at (0, c, i, j).

    So rescaling and normalisation leave them, for what they make of a value follows from it and its channel. Wherever
    NumPy is given one, it makes the floats of it.

    Shapes: picture (C, H, W) uint8, in any layout; values (C, 256) float32.
    """

    picture: NDArray[np.uint8]
    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the pixel values, (1, C, H, W)."""
        channels, height, width = self.picture.shape
        return 1, channels, height, width

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the pixel values, (1, C, H, W) float32 where no other type is asked for."""
        channels, height, width = self.picture.shape
        out = np.empty((channels, height * width), np.float32)
        found, pixel, plane = _find_bytes(self.picture)
        look_up(found, self.values, out, pixel, plane)
        return out.reshape(self.shape).astype(dtype or np.float32, copy=False)

    def look_up(self, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the byte that a table of (C, 256) has in place of each, (1, H, W, C)."""
        channels, height, width = self.picture.shape
        out = np.empty((height * width, channels), np.uint8)
        found, pixel, plane = _find_bytes(self.picture)
        look_up_pixels(found, table, out, pixel, plane)
        return out.reshape(1, height, width, channels)


def _find_bytes(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int, int]:
    """Return a picture's memory, and the steps to the next pixel and to the next channel in it.

    Pixels of channels, as Pillow has them and with bytes between the pixels or without, are left where they are.
    """
    channels, height, width = picture.shape
    if not picture.flags.c_contiguous and width > 1:
        step, row, pixel = picture.strides
        if pixel > 0 and row == width * pixel and (step == 1 or channels == 1):
            return as_strided(picture, ((height * width - 1) * pixel + channels,), (1,)), pixel, 1
    return np.ascontiguousarray(picture).reshape(-1), 1, height * width
