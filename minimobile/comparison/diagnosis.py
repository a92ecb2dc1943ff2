"""What a difference looks like: known faults as hypotheses, each tried on the layer that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minimobile.comparison.geometry_hypotheses import (
    other_classes,
    other_padding,
    other_pixels,
    other_resize,
    other_stride,
)
from minimobile.comparison.suspect import Candidate, Suspect, explains
from minimobile.comparison.weight_hypotheses import (
    exchanged_layers,
    forgotten_bias,
    forgotten_normalization,
    other_activation,
    other_epsilon,
    other_layout,
    other_precision,
    other_variance,
)


def diagnose(suspect: Suspect) -> str | None:
    """Return the first hypothesis under which float32 explains all that the other side found, in one sentence."""
    for propose in HYPOTHESES:
        for candidate in propose(suspect):
            if explains(candidate, suspect.grid):
                return candidate.sentence
    return None


# What is fitted to the values found comes last: it fits much.
HYPOTHESES: tuple[Callable[[Suspect], Iterator[Candidate]], ...] = (
    other_classes,
    other_padding,
    other_epsilon,
    other_activation,
    forgotten_normalization,
    forgotten_bias,
    other_precision,
    other_layout,
    other_pixels,
    exchanged_layers,
    other_resize,
    other_stride,
    other_variance,
)
