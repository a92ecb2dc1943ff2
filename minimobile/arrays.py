"""Arrays as callers hand them in: NumPy's own, tensors of a framework, lists of numbers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError

_MOST_AXES = 4  # of what is given as a list of lists
_LONGEST_REASON = 120  # characters


def read_array(given: object, what: str, expected: str = "an array") -> NDArray[Any]:
    """Return what a caller gave as a NumPy array, of any shape and type, without a copy where that is possible.

    Args:
        given: whatever NumPy can read: arrays, tensors on the CPU, numbers, lists of them.
        what: the argument that it came in, with which an error begins.
        expected: what it should be, for the error.

    Raises:
        InputError: NumPy cannot read it, or it hides entries behind a mask, which would be computed with.
    """
    if type(given) is np.ndarray:  # most of them, without a look into subclasses, lists and what else may be masked
        return given
    _refuse_masked(given, what)
    try:
        return np.asarray(given)
    except MemoryError:
        raise
    except Exception as error:  # each framework has its own: a tensor that needs grad, lies on a GPU, is bfloat16
        reason = str(error).split("\n", maxsplit=1)[0][:_LONGEST_REASON]
        raise InputError(
            f"{what}: expected {expected}, got {_name_type(given)} that NumPy cannot read ({reason})"
        ) from error


def _name_type(given: object) -> str:
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _refuse_masked(given: object, what: str) -> None:
    """Raise InputError for an array that hides entries behind its mask, or lists (of lists) with such an array.

    `numpy.asarray` drops the mask.
    """
    masked = sys.modules.get("numpy.ma")  # where nobody has imported it, there is no such array
    if masked is None:
        return
    items = [given]
    for _axis in range(_MOST_AXES + 1):
        if any(isinstance(item, masked.MaskedArray) and masked.is_masked(item) for item in items):
            raise InputError(
                f"{what}: expected an array whose entries all count, got a masked one; put numbers in the place of "
                "what is masked with its filled()"
            )
        items = [part for item in items if isinstance(item, list | tuple) for part in item]
