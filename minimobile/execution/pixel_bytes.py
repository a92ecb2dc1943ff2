"""Pixel values as the bytes of a picture and what each byte stands for: a network of bytes needs no floats of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels.entries import look_up, look_up_pixels


@dataclass(frozen=True, eq=False)
class PixelBytes:
    """The pixel values of one picture: `values[c, pixels[i, j, c]]` at (0, c, i, j).

    So rescaling and normalisation leave them, for what they make of a value follows from it and its channel. Wherever
    NumPy is given one, it makes the floats of it.

    Shapes: pixels (H, W, C) uint8, contiguous; values (C, 256) float32.
    """

    pixels: NDArray[np.uint8]
    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the pixel values, (1, C, H, W)."""
        height, width, channels = self.pixels.shape
        return 1, channels, height, width

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the pixel values, (1, C, H, W) float32 where no other type is asked for."""
        height, width, channels = self.pixels.shape
        out = np.empty((channels, height * width), np.float32)
        look_up(self.pixels.reshape(height * width, channels), self.values, out)
        return out.reshape(1, channels, height, width).astype(dtype or np.float32, copy=False)

    def look_up(self, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the byte that a table of (C, 256) has in place of each, (1, H, W, C)."""
        height, width, channels = self.pixels.shape
        out = np.empty((height * width, channels), np.uint8)
        look_up_pixels(self.pixels.reshape(height * width, channels), table, out)
        return out.reshape(1, height, width, channels)
