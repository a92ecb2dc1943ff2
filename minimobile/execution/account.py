"""Whether calls of a program are shared with helpers: decided by what sharing has won, not by what it should win."""

from __future__ import annotations

from minimobile.execution import processors

LOOKS = 3  # calls alone, whose median is what a call alone takes
EVERY = 300  # shared calls, after which that is looked at again: what it costs is below a hundredth
LEAST_REST, MOST_REST = 10, 100  # times what was lost; it doubles from trial to trial
LIMIT = 0.01  # seconds that are won or lost at most: two or three turns of another process on a processor
RISK = 0.002  # seconds: what sharing is thought to lose at first where no processor is free


class Account:
    """What shared calls of one program have won against calls alone, and whether to share the next one.

    How long helpers take to come, and whether other processes or the host of a virtual machine let them run, is not
    known beforehand. So each shared call adds to the balance what it was faster than a call alone, or takes from it
    what it was slower. Where more than one call's time is lost, calls go alone for ten times as long as what was lost,
    and then sharing is tried again; if that loses, too, for twenty times as long, and so on up to a hundred. They begin
    with a rest where no processor is free. So in the long run calls take about a hundredth longer than alone at most,
    and a machine that has become free is noticed. Calls that rest are not even timed: where they come one by one, the
    processor's caches know nothing of Python, and each line of it counts.
    """

    def __init__(self) -> None:
        self._balance = 0.0  # seconds
        self._rest = 0  # calls
        self._alone: list[float] = []  # seconds of the looks
        self._usual = 0.0  # seconds of a call alone, once that is known
        self._factor = LEAST_REST
        self._to_share = 1  # calls until the next look; the first one of all finds everything cold

    def rests(self) -> bool:
        """Tell whether the call that comes now goes alone, with nothing to note."""
        if self._rest > 0:
            self._rest -= 1
            return True
        return False

    def chooses_sharing(self) -> bool:
        """Tell whether to share a call that does not rest."""
        return self._to_share > 0

    def note(self, seconds: float, was_shared: bool) -> None:
        """Note how long a call took that did not rest."""
        if was_shared:
            self._to_share -= 1
            if self._usual:
                self._settle(self._usual - seconds)
            return
        self._alone.append(seconds)
        if len(self._alone) == LOOKS:
            is_first, self._usual = not self._usual, sorted(self._alone)[LOOKS // 2]
            self._alone.clear()
            if is_first and processors.are_all_taken():
                self._pay(RISK, LEAST_REST)
            else:
                self._to_share = EVERY

    def _settle(self, won: float) -> None:
        self._balance = max(-LIMIT, min(LIMIT, self._balance + won))
        if self._balance == LIMIT:
            self._factor = LEAST_REST
        elif self._balance < -min(self._usual, LIMIT / 2):
            self._pay(-self._balance, self._factor)
            self._factor = min(MOST_REST, 2 * self._factor)
            self._balance, self._to_share = 0.0, 0

    def _pay(self, lost: float, factor: int) -> None:
        """Rest for so many times as long as what was lost, and then look again."""
        self._rest = int(factor * lost / self._usual) + 1
