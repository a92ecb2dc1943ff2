"""How an answer is asked, compared and told that it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Answer: TypeAlias = Callable[..., Any]
Check: TypeAlias = Callable[[Answer], None]
Array: TypeAlias = NDArray[Any]


class WrongAnswerError(Exception):
    """What is wrong with an answer, in one sentence for its author."""


def expect(is_right: bool, sentence: str) -> None:
    """Raise WrongAnswerError with the sentence unless `is_right`."""
    if not is_right:
        raise WrongAnswerError(sentence)


def ask(answer: Answer, wanted: object, **arguments: object) -> None:
    """Call the answer and compare what it returns, a number, a truth value or a tuple of these."""
    case = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    got = answer(**arguments)
    is_same = bool(np.shape(got) == np.shape(wanted) and np.all(np.asarray(got) == np.asarray(wanted)))
    expect(is_same, f"for {case} expected {wanted!r}, got {got!r}")


def compare(got: object, wanted: Array, case: str) -> None:
    """Compare an array with the wanted one, but for rounding in float64."""
    expect(isinstance(got, np.ndarray), f"{case}: expected an array, got {type(got).__name__}")
    values = np.asarray(got)
    expect(values.shape == wanted.shape, f"{case}: expected the shape {wanted.shape}, got {values.shape}")
    expect(bool(np.isfinite(values).all()), f"{case}: expected numbers, got NaN or infinity")
    difference = np.abs(values - wanted)
    if difference.size and difference.max() > 1e-9 * max(1.0, float(np.abs(wanted).max())):
        place = tuple(int(index) for index in np.unravel_index(difference.argmax(), difference.shape))
        expect(False, f"{case}: at {place} expected {wanted[place]:.6g}, got {values[place]:.6g}")


def draw_integers(seed: int, *shape: int) -> Array:
    """Return small whole numbers as float64."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def draw_numbers(seed: int, *shape: int) -> Array:
    """Return normally distributed float64."""
    return np.random.default_rng(seed).normal(size=shape)
