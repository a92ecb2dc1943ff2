"""A quantised network as data: tensors with their scales, and operations in an order in which they can be computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tensor:
    """One tensor: images are (N, H, W, C). A byte q stands for scales[0] * (q - zero_points[0]).

    Weights may have a scale for each entry along `axis`; `scales` is empty where values stand for themselves.
    `values` are those of a constant. Weights: conv2d (C_out, K_h, K_w, C_in), depthwise_conv2d (1, K_h, K_w, C),
    fully_connected (C_out, C_in).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scales: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_points: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    axis: int = 0
    values: NDArray[Any] | None = None

    @property
    def scale(self) -> np.float32:
        """The one scale."""
        scale: np.float32 = self.scales[0]
        return scale

    @property
    def zero(self) -> int:
        """The one zero point."""
        return int(self.zero_points[0])


@dataclass(frozen=True)
class Operation:
    """One operation: a key of the table in `operations/`, the tensors it reads (maps, then weights) and writes.

    `attributes` are those that the operation's class names. Axes count from the first, none is below zero.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """Tensors by name, operations in order, and the names of what goes in and comes out.

    `bytes_of` says by whose rule sums become bytes, unless a caller says otherwise (see `QuantizedEngine`).
    """

    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes_of: str = "litert"


def shorten(name: str) -> str:
    """Return a tensor's name in quotes, short enough for a message.

    >>> shorten("logits")
    "'logits'"
    """
    return repr(name if len(name) <= 100 else f"{name[:100]}...")
