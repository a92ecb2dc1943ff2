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
from minimobile.comparison.value_hypotheses import fewer_bits, no_numbers, other_order
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
    """Return the first hypothesis under which float32 explains all that the other side found, in one sentence.

    Where none does and the shapes differ, that is said.
    """
    for propose in HYPOTHESES:
        for candidate in propose(suspect):
            if explains(candidate, suspect.grid):
                return candidate.sentence
    theirs, ours = ((n, c, h, w) for n, h, w, c in (suspect.found.shape, suspect.estimate().value.shape))
    return None if theirs == ours else f"shape: (N, C, H, W) is {theirs}; ours is {ours}"


# What is fitted to the values found comes last: it fits much.
HYPOTHESES: tuple[Callable[[Suspect], Iterator[Candidate]], ...] = (
    no_numbers,
    other_order,
    other_classes,
    other_padding,
    other_epsilon,
    other_activation,
    forgotten_normalization,
    forgotten_bias,
    other_precision,
    fewer_bits,
    other_layout,
    other_pixels,
    exchanged_layers,
    other_resize,
    other_stride,
    other_variance,
)
