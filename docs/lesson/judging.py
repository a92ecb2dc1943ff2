"""How an answer is asked, compared and told that it is wrong, with a hint where the mistake is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Answer: TypeAlias = Callable[..., Any]
Check: TypeAlias = Callable[[Answer], None]
Array: TypeAlias = NDArray[Any]
Hints: TypeAlias = Sequence[tuple[object, str]]
"""What mistakes give in place of the right result, and what helps who made them; `...` stands for any other result."""

TOLERANCE = 1e-9  # of the largest value wanted, or of 1: for rounding in float64


class WrongAnswerError(Exception):
    """What is wrong with an answer, in one sentence for its author."""


def expect(is_right: bool, sentence: str) -> None:
    """Raise WrongAnswerError with the sentence unless `is_right`."""
    if not is_right:
        raise WrongAnswerError(sentence)


def give_hint(got: object, hints: Hints) -> str:
    """Return what to add to a sentence about a wrong result: the first hint that fits it, or nothing.

    >>> give_hint((1, 0), [((1, 0), "the odd zero comes after"), (..., "never fewer than 0")])
    '; the odd zero comes after'
    """
    for mistake, sentence in hints:
        if mistake is ... or (np.shape(mistake) == np.shape(got) and _is_close(got, mistake)):
            return f"; {sentence}"
    return ""


def _is_close(got: object, wanted: object) -> bool:
    try:
        values, others = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    except (TypeError, ValueError):  # no numbers
        return False
    return bool(np.allclose(values, others, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(others).max(initial=0)))))


def ask(answer: Answer, wanted: object, hints: Hints = (), **arguments: object) -> None:
    """Call the answer and compare what it returns, a number, a truth value or a tuple of these."""
    case = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    got = answer(**arguments)
    is_same = bool(np.shape(got) == np.shape(wanted) and np.all(np.asarray(got) == np.asarray(wanted)))
    expect(is_same, f"for {case} expected {wanted!r}, got {got!r}{give_hint(got, hints)}")


def compare(got: object, wanted: Array, case: str, hints: Hints = ()) -> None:
    """Compare an array with the wanted one, but for rounding in float64."""
    expect(isinstance(got, np.ndarray), f"{case}: expected an array, got {type(got).__name__}")
    values, hint = np.asarray(got), give_hint(got, hints)
    expect(values.shape == wanted.shape, f"{case}: expected the shape {wanted.shape}, got {values.shape}{hint}")
    expect(bool(np.isfinite(values).all()), f"{case}: expected numbers, got NaN or infinity{hint}")
    difference = np.abs(values - wanted)
    if difference.size and difference.max() > TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        place = tuple(int(index) for index in np.unravel_index(difference.argmax(), difference.shape))
        expect(False, f"{case}: at {place} expected {wanted[place]:.6g}, got {values[place]:.6g}{hint}")


def draw_integers(seed: int, *shape: int) -> Array:
    """Return small whole numbers as float64."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def draw_numbers(seed: int, *shape: int) -> Array:
    """Return normally distributed float64."""
    return np.random.default_rng(seed).normal(size=shape)
