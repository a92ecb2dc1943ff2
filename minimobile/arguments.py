"""Plain arguments as callers hand them in: numbers, flags, and names out of a list."""

from __future__ import annotations

import reprlib
from collections.abc import Collection

import numpy as np

from minimobile.errors import InputError


def read_whole(value: object, what: str, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a whole number, whatever type has it, that a caller gives as `what`; InputError for what is none."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{what}: expected a whole number of {least} to {most}, got {show(value)}")
    return int(value)


def read_flag(value: object, what: str) -> bool:
    """Return True or False, Python's or NumPy's, that a caller gives as `what`; InputError for anything else.

    A text is not taken for what it says, and least of all for True, as Python does: "false" would be.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{what}: expected True or False, got {show(value)}")
    return bool(value)


def check_choice(value: object, what: str, choices: Collection[str]) -> None:
    """Raise InputError for what is not one of the names that a caller may give as `what`."""
    if not (isinstance(value, str) and value in choices):
        raise InputError(f"{what}: expected one of {', '.join(choices)}, got {show(value)}")


def show(value: object) -> str:
    """Show any value in one short line."""
    return " ".join(reprlib.repr(value).split())
