"""The errors a user can meet: every one a `MinimobileError` with one sentence, saying where, expected, got, way out.

Where transformers, or Python itself, has its own class for a mistake, ours is of that class, too: existing `except`
clauses catch it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


def printable(text: object) -> str:
    r"""Return the text with every control character escaped: labels and file names come from strangers.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)


class MinimobileError(ValueError):
    """The base of every error that minimobile raises on purpose: one printable line, whatever a file has as a name."""

    def __init__(self, sentence: object = "") -> None:
        super().__init__(printable(sentence))


class ConfigError(MinimobileError):
    """A model or processor configuration holds a value that has no meaning."""


class FrozenConfigError(ConfigError, FrozenInstanceError):
    """A field of a config was assigned to: an AttributeError, too, as for every frozen dataclass."""


class FormatError(MinimobileError):
    """A file is missing, truncated, hostile, or of a format or content that cannot be loaded."""


class MissingError(FormatError, FileNotFoundError):
    """A file, directory, repository or revision is not there: an OSError, too, as in transformers."""


class InputError(MinimobileError):
    """An image, array or argument handed to a model or an image processor does not fit it."""


class UnknownLayerError(MinimobileError):
    """A layer was asked for by a name or index that the network does not have."""


class UnavailableError(MinimobileError):
    """Something optional is needed and absent: an extra, the network, a framework."""


class UnreachableError(UnavailableError, ConnectionError):
    """The hub cannot be reached: an OSError, too, as in transformers."""


def within_memory(what: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Have a want of memory in a function, for `what` its caller gave, be an InputError."""

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(function)
        def run(*arguments: Given.args, **named: Given.kwargs) -> Result:
            try:
                return function(*arguments, **named)
            except MemoryError as error:
                reason = str(error) or "the system gave no more"
                raise InputError(f"{what}: needs more memory than there is ({reason}); use a smaller one") from None

        return run

    return decorate
