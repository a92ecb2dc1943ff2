"""What post-processing reads: the logits or classes that a model returned, and the sizes of the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import show
from minimobile.errors import InputError
from minimobile.imaging.inputs import to_array
from minimobile.imaging.settings import MAX_EDGE

Sizes = list[tuple[int, int]] | list[None]


def read_logits(outputs: Any, target_sizes: Sequence[tuple[int, int]] | None, where: str) -> tuple[NDArray[Any], Sizes]:
    """Return the logits (N, C, h, w) of outputs and the size of each picture, or raise InputError."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    logits = to_array(found, where)
    if logits.ndim != 4 or 0 in logits.shape:
        raise InputError(f"{where}: expected logits (N, C, h, w), got {logits.shape}")
    return logits, check_target_sizes(target_sizes, len(logits), where)


def read_classes(outputs: Any, where: str) -> NDArray[Any] | None:
    """Return the classes (N, h, w) that a network has found itself, in the smallest type, or None."""
    own = outputs.get("classes") if isinstance(outputs, Mapping) else getattr(outputs, "classes", None)
    if own is None:
        return None
    found = to_array(own, where)
    if found.dtype.kind not in "iu" or found.min(initial=0) < 0:
        raise InputError(f"{where}: expected classes to be whole numbers from 0 up, got {found.dtype}")
    return found.astype(np.min_scalar_type(int(found.max(initial=0))))


def check_target_sizes(target_sizes: Any, count: int, where: str) -> Sizes:
    """Return (height, width) of each of `count` pictures, or None for each; raise InputError for anything else."""
    if target_sizes is None:
        return [None] * count
    try:
        sizes = np.asarray(target_sizes)
    except Exception:  # pairs and other lengths mixed, a tensor that NumPy cannot read; the message below is for all
        sizes = np.empty(0)
    if sizes.shape != (count, 2) or sizes.dtype.kind not in "iu" or not 1 <= sizes.min() <= sizes.max() <= MAX_EDGE:
        raise InputError(
            f"{where}: expected target_sizes to be {count} pairs (height, width) in 1..{MAX_EDGE}, one per "
            f"picture, got {show(target_sizes)}"
        )
    return [(int(height), int(width)) for height, width in sizes]
