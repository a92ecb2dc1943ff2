"""Whatever a reader raises is one error: readers check what they read, and this is for what they did not foresee."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from minimobile.errors import FormatError, MinimobileError

Reader = TypeVar("Reader", bound=Callable[..., Any])


def with_one_error(reader: Reader) -> Reader:
    """Return a function that raises FormatError, with the file's name, for what `reader` raises that is not ours.

    >>> with_one_error(lambda path: 1 / 0)(Path("x"))
    Traceback (most recent call last):
    minimobile.errors.FormatError: x: cannot be read, it is most likely damaged (ZeroDivisionError: division by zero)
    """

    @wraps(reader)
    def read(path: Path, **named: Any) -> Any:
        try:
            return reader(path, **named)
        except MinimobileError:
            raise
        except MemoryError as error:
            raise FormatError(f"{path}: reading it takes more memory than there is") from error
        except PermissionError as error:
            raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise FormatError(f"{path}: cannot be read, it is most likely damaged ({text})") from error

    return cast(Reader, read)
