"""What is made once for a key, and kept for the last keys: compiled programs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")
MOST = 16


class Recent(Generic[Made]):
    """What was made for the `MOST` keys that were asked for last; many threads may ask."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, Made] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made for a key, or make it; other threads wait meanwhile."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                if len(self._made) > MOST:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]
