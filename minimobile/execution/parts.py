"""Into how many parts a step is cut for several threads."""

from __future__ import annotations

MOST = 4  # for each thread


def count_parts(cost: int, num_threads: int, least: int, good: int) -> int:
    """Return the number of parts of a step that costs so much, in the unit of `least` and `good`.

    As many for each thread, for three parts take two threads as long as four: several, so that they finish together
    whatever the machine does meanwhile; where these were smaller than `good`, one; and none smaller than `least`, so
    that taking it does not cost more than it saves.
    """
    if cost < least * num_threads:
        return max(1, cost // least)
    return num_threads * max(1, min(MOST, cost // (good * num_threads)))
