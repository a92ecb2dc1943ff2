"""What an image processor returns: a dictionary with attributes, and pictures stacked for a framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError, UnavailableError

_FRAMEWORKS = {
    "pt": ("torch", "from_numpy"),
    "tf": ("tensorflow", "convert_to_tensor"),
    "jax": ("jax.numpy", "asarray"),
}


class BatchFeature(dict[str, Any]):
    """A dictionary whose items are attributes too, so that `model(**inputs)` and `inputs.pixel_values` work."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"BatchFeature: there is no {name!r}; it holds {', '.join(self) or 'nothing'}"
            ) from None


def require_framework(framework: str | None) -> None:
    """Raise UnavailableError where `framework` (None, "np", "pt", "tf" or "jax") is not installed."""
    if framework in _FRAMEWORKS:
        _find_converter(framework)


def stack_arrays(arrays: list[NDArray[Any]], framework: str | None) -> Any:
    """Stack arrays of one shape as the framework's type; None gives a list of contiguous arrays of their own."""
    if framework is None:
        return [array if array.flags.owndata and array.flags.c_contiguous else array.copy() for array in arrays]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise InputError(
            f"return_tensors={framework!r}: expected pictures of one size, got {sorted(shapes)}; crop them, "
            f"or pass return_tensors=None"
        )
    batch = np.stack(arrays)
    try:
        return batch if framework == "np" else _find_converter(framework)(batch)
    except TypeError as error:
        raise InputError(f"return_tensors={framework!r}: it has no type for {batch.dtype} ({error})") from error


def _find_converter(framework: str) -> Callable[[NDArray[Any]], Any]:
    module, function = _FRAMEWORKS[framework]
    try:
        converter: Callable[[NDArray[Any]], Any] = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise UnavailableError(
            f"return_tensors={framework!r}: {module.split('.')[0]} is not installed; install it, "
            f"or use return_tensors='np'"
        ) from error
    return converter
