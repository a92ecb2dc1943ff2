"""Figures short enough for a column of a terminal."""

from __future__ import annotations

import math


def shorten(value: float | None, digits: int) -> str:
    """Return a number with one or two significant digits, three from 100 on, and a short exponent.

    >>> [shorten(x, 1) for x in (0.000281, 0.0281, 0.281, 28.1, 281, 2810)]
    ['3e-4', '0.03', '0.28', '28', '281', '3e3']
    """
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if 100 <= abs(value) < 1000:
        return f"{value:.0f}"
    if 0.01 <= abs(value) < 100:
        return f"{value:.{digits if abs(value) < 0.1 else 2}g}"
    significand, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{significand}e{int(exponent)}"
