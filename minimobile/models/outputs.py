"""What a model returns: records with the fields, and the ways of access, of transformers' output classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.execution.runner import DataFormat

Array = NDArray[Any]
Loss: TypeAlias = np.floating[Any]

_POOLED = ("pooler", "classifier")  # nodes whose single pixel is dropped: (N, C, 1, 1) -> (N, C)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ModelOutput(Mapping[str, Any]):
    """A record whose absent fields are None as attributes and left out everywhere else.

    `out.logits`, `out["logits"]` and `out[0]` give one item, `out[:2]` and `out.to_tuple()` tuples; iteration, `len`
    and `in` speak of the names of the items that are there, so `dict(out)` and `**out` work.
    """

    if TYPE_CHECKING:  # what `load(...)(...)` can hold, for type checkers: which class it is follows from the file

        @property
        def loss(self) -> Loss | None:
            """The loss, where labels were given."""

        @property
        def logits(self) -> Array:
            """(N, num_labels), or (N, num_labels, h, w)."""

        @property
        def hidden_states(self) -> tuple[Array, ...] | None:
            """Those asked for, each (N, C, H, W)."""

        @property
        def last_hidden_state(self) -> Array:
            """(N, C, H, W), of a network without a head."""

        @property
        def pooler_output(self) -> Array | None:
            """(N, C), of a network without a head."""

        @property
        def probabilities(self) -> Array | None:
            """A quantised file's own, (N, num_labels)."""

        @property
        def classes(self) -> Array | None:
            """A quantised file's own, (N, H, W)."""

    else:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"{type(self).__name__}: expected one of {', '.join(self._names())}, got {name!r}")

    __hash__ = object.__hash__  # a record is equal to itself alone: arrays have no single answer
    __eq__ = object.__eq__

    def __repr__(self) -> str:
        """Return the names and shapes of the items, not their numbers: some have millions."""
        items = ", ".join(f"{name}: {_describe(value)}" for name, value in self.items())
        return f"{type(self).__name__}({items})"

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


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class BaseModelOutputWithPoolingAndNoAttention(ModelOutput):
    """Features: last_hidden_state (N, C, H, W), pooler_output (N, C), hidden_states (each (N, C, H, W))."""

    last_hidden_state: Array
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ImageClassifierOutputWithNoAttention(ModelOutput):
    """Classification: loss (a scalar, with labels), logits (N, num_labels), hidden_states (each (N, C, H, W)).

    `probabilities` (N, num_labels) are a quantised file's own, where it ends in them.
    """

    loss: Loss | None = None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    probabilities: Array | None = None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SemanticSegmenterOutput(ModelOutput):
    """Segmentation: loss (a scalar, with labels), logits (N, num_labels, h, w) at feature resolution, hidden_states.

    `attentions` is always None; transformers' class of this name has it. `classes` (N, H, W) are a quantised file's
    own, where it ends in them.
    """

    loss: Loss | None = None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: None = None
    classes: Array | None = None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ObjectDetectionOutput(ModelOutput):
    """Detection: logits (N, A, K + 1), pred_boxes (N, A, 4), hidden_states, and what was detected.

    Each of A anchors has a row. Column 0 of the logits is the background, column k + 1 class k. `pred_boxes` are
    (centre x, centre y, width, height) relative to the picture, as transformers' detectors have them, and
    `box_encodings` (N, A, 4) what they were decoded from.

    The network's own post-processing found `num_detections` (N): so many rows of `detection_boxes` (N, M, 4; ymin,
    xmin, ymax, xmax, relative), `detection_classes` (N, M) and `detection_scores` (N, M), the best first; the rows
    behind them are zeros.
    """

    logits: Array
    pred_boxes: Array
    hidden_states: tuple[Array, ...] | None = None
    box_encodings: Array
    detection_boxes: Array
    detection_classes: Array
    detection_scores: Array
    num_detections: Array


def _describe(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} arrays"
    return f"{value.dtype} {value.shape}" if value.shape else str(value)


def drop_single_pixel(name: str, values: Array, data_format: DataFormat) -> Array:
    """Return the values of a node, pooled maps of one pixel without it: (N, C, 1, 1) -> (N, C)."""
    if name not in _POOLED:
        return values
    height, width = values.shape[2:] if data_format == "channels_first" else values.shape[1:3]
    return values.reshape(len(values), -1) if height == width == 1 else values


def require_finite(values: Array, where: object, what: str) -> None:
    """Raise InputError where a picture's results hold NaN or infinity: no class and no mask follows from them."""
    flat = values.reshape(-1)
    if math.isfinite(flat.dot(flat)):  # one pass; squares of large numbers, too, are looked at one by one
        return
    count = values.size - int(np.count_nonzero(np.isfinite(values)))
    if count:
        raise InputError(
            f"{where}: expected finite {what}, got NaN or infinity in {count} of {values.size}; weights, or pixels "
            "given as an array, are damaged or too large (`minimobile trace` shows in which layer it begins)"
        )
