"""What is made once for a key, and kept for the last keys: compiled programs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from minimobile.execution.process_lock import ProcessLock

Made = TypeVar("Made")
MOST = 16


class Recent(Generic[Made]):
    """What was made for the `MOST` keys that were asked for last; many threads may ask."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, Made] = OrderedDict()
        self._lock = ProcessLock()

    def find(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made for a key, or make it; threads that need other things made wait meanwhile."""
        found = self._look_up(key)
        if found is None:
            with self._lock.here():
                found = self._look_up(key)
                if found is None:
                    found = self._made[key] = make()
                    if len(self._made) > MOST:
                        self._made.popitem(last=False)
        return found

    def _look_up(self, key: Hashable) -> Made | None:
        """Return what was made for a key and have it count as new, or None; other threads may be changing the rest."""
        try:
            self._made.move_to_end(key)
            return self._made[key]
        except KeyError:  # the second, too, may find it dropped
            return None
