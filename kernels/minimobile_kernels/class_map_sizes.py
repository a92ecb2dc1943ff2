"""How much memory `class_map.find_classes` needs besides its result."""

from __future__ import annotations

COLUMNS = 512
"""How many columns are computed at a time: two rows of them stay in the second-level cache (21 classes: 172 KB)."""


def work_sizes(channels: int, width: int) -> tuple[tuple[int, int, int], int]:
    """Return the shape of `rows` and the size of `best` for a number of channels and the width of the result."""
    return (2, channels, min(width, COLUMNS)), min(width, COLUMNS)
