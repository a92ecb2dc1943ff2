"""Plain arguments as callers hand them in: numbers, flags, and names out of a list."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Collection
from numbers import Integral

from minimobile.errors import InputError

MOST = 2**63 - 1  # what 64 bits hold


def read_whole(value: object, what: str, least: int = 0, most: int = MOST) -> int:
    """Return a whole number, whatever type has it, that a caller gives as `what`; InputError for what is none."""
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else least - 1
    if not least <= number <= most:
        limits = f"{least} or more" if most == MOST and number < least else f"{least} to {most}"
        raise InputError(f"{what}: expected a whole number of {limits}, got {show(value)}")
    return number


def read_flag(value: object, what: str) -> bool:
    """Return True or False, Python's or NumPy's, that a caller gives as `what`; InputError for anything else.

    A text is not taken for what it says, and least of all for True, as Python does: "false" would be.
    """
    numpy = sys.modules.get("numpy")  # not imported for it: where nobody has, there is no flag of its own
    if not isinstance(value, bool if numpy is None else bool | numpy.bool_):
        raise InputError(f"{what}: expected True or False, got {show(value)}")
    return bool(value)


def check_choice(value: object, what: str, choices: Collection[str]) -> None:
    """Raise InputError for what is not one of the names that a caller may give as `what`."""
    if not (isinstance(value, str) and value in choices):
        raise InputError(f"{what}: expected one of {', '.join(choices)}, got {show(value)}")


def show(value: object) -> str:
    """Show any value in one short line."""
    return " ".join(reprlib.repr(value).split())
