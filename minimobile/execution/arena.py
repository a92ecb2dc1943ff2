"""The one array in which all maps of a run have their places."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

LINE = 16  # floats of a cache line


def whole_lines(size: int) -> int:
    """Return how many floats the cache lines have that hold `size` of them."""
    return -(-size // LINE) * LINE


def aligned_floats(size: int) -> NDArray[np.float32]:
    """Return uninitialised float32 memory that begins at a cache line."""
    memory = np.empty(size + LINE, np.float32)
    start = -memory.ctypes.data % (4 * LINE) // 4
    return memory[start : start + size]


class ArenaPool:
    """Arenas that calls take and give back: memory that was used before need not be asked of the system again.

    It needs no lock, which a process that is forked meanwhile would find closed for ever: a deque's own methods do
    their work wholly before another thread is let in.
    """

    KEPT = 4

    def __init__(self) -> None:
        self._arenas: deque[NDArray[np.float32]] = deque(maxlen=self.KEPT)

    def take(self, size: int) -> NDArray[np.float32]:
        """Return an arena of at least `size` floats that nobody else has; the others are forgotten if none fits."""
        passed: list[NDArray[np.float32]] = []
        while self._arenas:
            try:
                arena = self._arenas.pop()
            except IndexError:  # another thread was quicker
                break
            if size <= arena.size <= 4 * size:
                self._arenas.extend(passed)
                return arena
            passed.append(arena)
        return aligned_floats(max(size, 1))

    def give_back(self, arena: NDArray[np.float32]) -> None:
        """Let another call have the arena."""
        self._arenas.append(arena)


class Arena:
    """Gives maps their place in one array; what is released is given out again (first fit, in order of offset).

    The first `reserved` floats are not for maps.
    """

    def __init__(self, reserved: int = 0) -> None:
        self.size = self._first = reserved
        self.offsets: dict[str, int] = {}
        self._taken: dict[str, tuple[int, int]] = {}  # name -> (first, last)

    def place(self, name: str, size: int) -> None:
        """Reserve `size` floats for a map."""
        size = whole_lines(size)
        start = self._first
        for first, last in sorted(self._taken.values()):
            if start + size <= first:
                break
            start = max(start, last)
        self._taken[name] = (start, start + size)
        self.offsets[name] = start
        self.size = max(self.size, start + size)

    def names(self) -> list[str]:
        """Return what has a place now."""
        return list(self._taken)

    def release(self, name: str) -> None:
        """Give a map's place to whoever comes next."""
        del self._taken[name]
