"""How the kernels of bytes have tensors: four dimensions, and unsigned bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.network import Tensor

Shape = tuple[int, int, int, int]


def as_image(shape: tuple[int, ...]) -> Shape:
    """Return a shape of two to four dimensions as (N, H, W, C): two are single pixels, three are rows of them."""
    return (shape[0], *(1,) * (4 - len(shape)), *shape[1:])  # type: ignore[return-value]  # four of them


def is_map(tensor: Tensor) -> bool:
    """Tell whether the kernels can have a tensor as a map of bytes."""
    return tensor.values is None and len(tensor.shape) in (2, 4) and tensor.dtype in (np.uint8, np.int8)


def lift(dtype: np.dtype[Any]) -> int:
    """Return what the kernels add to bytes of a type, modulo 256: they know unsigned ones alone."""
    return 128 if dtype == np.int8 else 0


def lifted_zero(tensor: Tensor) -> int:
    """Return the zero point of a tensor as the kernels have it; 0 where it has none."""
    return tensor.zero + lift(tensor.dtype) if len(tensor.zero_points) else 0


def values_of(tensor: Tensor) -> NDArray[Any]:
    """Return the values of a constant."""
    assert tensor.values is not None, tensor.name
    return tensor.values


def every_byte(tensor: Tensor) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Return all values of a tensor's type, in the order of the bytes as the kernels have them."""
    every: NDArray[np.uint8] | NDArray[np.int8] = (np.arange(256) - lift(tensor.dtype)).astype(tensor.dtype)
    return every
