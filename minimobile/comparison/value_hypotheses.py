"""Known faults of the values themselves: no numbers, another layout, fewer bits than float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from minimobile.comparison.suspect import Array, Candidate, Suspect, as_floats
from minimobile.comparison.weight_hypotheses import PRECISIONS
from minimobile.operations.estimate import Estimate

HALF_STEPS = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
"""What rounding to a type moves a value by at most: relative to it, and where it is subnormal."""


def no_numbers(suspect: Suspect) -> Iterator[Candidate]:
    """NaN or infinite values, the others being right."""
    is_number, expected = np.isfinite(suspect.found), suspect.estimate()
    if is_number.all() or expected.value.shape != suspect.found.shape:
        return
    count, nan = int((~is_number).sum()), int(np.isnan(suspect.found).sum())
    words = f"{count} of {is_number.size} are no numbers ({nan} NaN, {count - nan} infinite)"
    others = "" if count == is_number.size else "; the others are right"
    yield Candidate(f"values: {words}{others}", expected, np.where(is_number, suspect.found, expected.value))


def other_order(suspect: Suspect) -> Iterator[Candidate]:
    """Maps with their channels last, given as if they came first."""
    expected = suspect.estimate()
    turned = suspect.found.transpose(0, 3, 1, 2)  # what was called (N, C, H, W) and is (N, H, W, C)
    if turned.shape == expected.value.shape and turned.shape[1] > 1:
        yield Candidate("layout: the values are (N, H, W, C); expected were (N, C, H, W)", expected, turned)


def fewer_bits(suspect: Suspect) -> Iterator[Candidate]:
    """Values rounded to 16 bits, as by a runtime that computes so; weights too, or not."""
    weights = {name for node in suspect.nodes for name in node.weights.values()}
    for kind, rounding in PRECISIONS.items():
        expected = suspect.estimate()
        if expected.value.shape != suspect.found.shape or not suspect.found.any() or not _has_type(suspect.found, kind):
            continue
        yield Candidate(f"precision: values rounded to {kind}", _with_rounding(expected, kind), suspect.found)
        if not suspect.is_path:
            rounded = {name: rounding(as_floats(suspect.weights, name)) for name in weights}
            expected = _with_rounding(suspect.with_weights(rounded), kind)
            yield Candidate(f"precision: values and weights rounded to {kind}", expected, suspect.found)


def _has_type(values: Array, kind: str) -> bool:
    return np.array_equal(PRECISIONS[kind](values), values.astype(np.float64))


def _with_rounding(expected: Estimate, kind: str) -> Estimate:
    relative, absolute = HALF_STEPS[kind]
    step = relative * expected.reach + absolute
    deviation = np.hypot(expected.deviation, step / np.sqrt(3))
    return dataclasses.replace(expected, error=expected.error + step, deviation=deviation)
