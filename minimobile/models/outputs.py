"""What a model returns: records with the fields, and the ways of access, of transformers' output classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ModelOutput(Mapping[str, Any]):
    """A record whose absent fields are None as attributes and left out everywhere else.

    `out.logits`, `out["logits"]` and `out[0]` give one item, `out[:2]` and `out.to_tuple()` tuples; iteration, `len`
    and `in` speak of the names of the items that are there, so `dict(out)` and `**out` work.
    """

    __hash__ = object.__hash__  # a record is equal to itself alone: arrays have no single answer
    __eq__ = object.__eq__

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        value = getattr(self, key) if key in self._names() else None
        if value is None:
            raise KeyError(f"{type(self).__name__}: expected one of {', '.join(self)}, got {key!r}")
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names() if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the items that are there, in the order of the fields."""
        return tuple(getattr(self, name) for name in self)

    def _names(self) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(self))


@dataclass(frozen=True, eq=False)
class BaseModelOutputWithPoolingAndNoAttention(ModelOutput):
    """Features: last_hidden_state (N, C, H, W), pooler_output (N, C), hidden_states (each (N, C, H, W))."""

    last_hidden_state: Array | None = None
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None


@dataclass(frozen=True, eq=False)
class ImageClassifierOutputWithNoAttention(ModelOutput):
    """Classification: loss (a scalar, with labels), logits (N, num_labels), hidden_states (each (N, C, H, W)).

    `probabilities` (N, num_labels) are a quantised file's own, where it ends in them.
    """

    loss: np.floating[Any] | None = None
    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    probabilities: Array | None = None


@dataclass(frozen=True, eq=False)
class SemanticSegmenterOutput(ModelOutput):
    """Segmentation: loss (a scalar, with labels), logits (N, num_labels, h, w) at feature resolution, hidden_states.

    `attentions` is always None; transformers' class of this name has it. `classes` (N, H, W) are a quantised file's
    own, where it ends in them.
    """

    loss: np.floating[Any] | None = None
    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: None = None
    classes: Array | None = None


def require_finite(values: Array, where: object, what: str) -> None:
    """Raise InputError where a picture's results hold NaN or infinity: no class and no mask follows from them."""
    count = values.size - int(np.count_nonzero(np.isfinite(values)))
    if count:
        raise InputError(
            f"{where}: expected finite {what}, got NaN or infinity in {count} of {values.size}; weights, or pixels "
            "given as an array, are damaged or too large (`minimobile trace` shows in which layer it begins)"
        )
