"""Packages that an extra brings: imported when they are asked for, or one sentence that says how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from minimobile.errors import UnavailableError


def import_extra(name: str, extra: str, purpose: str, hint: str = "") -> Any:
    """Return the module `name`, of a package that `extra` brings `purpose` ("to compare with").

    Raises UnavailableError where it is not installed: the sentence names the extra, and ends in `hint`.
    """
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UnavailableError(
            f"{package}: expected this package {purpose}, it is not installed; "
            f"python -m pip install 'minimobile[{extra}]'{hint}"
        ) from None
