"""What an image processor returns: a dictionary with attributes, and pictures stacked for a framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import check_choice
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

    @property
    def data(self) -> dict[str, Any]:
        """What it holds, as transformers calls that: the batch itself, which is a dictionary."""
        return self

    def convert_to_tensors(self, tensor_type: str | None = None) -> BatchFeature:
        """Return the batch itself, its lists of pictures stacked for a framework: "np", "pt", "tf" or "jax".

        Raises InputError where the pictures are not of one size, UnavailableError where the framework is missing.
        """
        if tensor_type is not None:
            check_choice(tensor_type, "convert_to_tensors", ("np", *_FRAMEWORKS))
        self.update({name: stack_arrays(value, tensor_type) for name, value in self.items() if isinstance(value, list)})
        return self

    def to(self, *arguments: Any, **named: Any) -> BatchFeature:
        """Return the batch itself, its tensors moved or converted as their own `to` does.

        Arrays are on the processor: "cpu" leaves them as they are, a type of floats converts them, and anything else
        raises InputError.
        """
        self.update({name: _move(value, arguments, named) for name, value in self.items()})
        return self


def _move(value: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return a tensor where and as what it was asked to be; an array is on the processor, only its type changes."""
    if isinstance(value, list):
        return [_move(item, arguments, named) for item in value]
    if not isinstance(value, np.ndarray):
        is_floating = not hasattr(value, "is_floating_point") or value.is_floating_point()
        return value.to(*arguments, **named) if is_floating else value  # as transformers: class ids stay whole numbers
    for wish in (*arguments, named.get("device"), named.get("dtype")):
        if wish is None or isinstance(wish, bool) or str(wish) == "cpu":
            continue
        try:
            dtype = np.dtype(str(wish).removeprefix("torch.") if not isinstance(wish, type) else wish)
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind != "f":
            raise InputError(f"BatchFeature.to: expected 'cpu' or a type of floats, got {str(wish)!r}")
        value = value.astype(dtype) if value.dtype.kind == "f" else value
    return value


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
