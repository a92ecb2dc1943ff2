"""Whether calls of a program are shared with helpers: decided by what sharing has won, not by what it should win."""

from __future__ import annotations

from minimobile.execution import processors

LOOKS, KEPT = 3, 5  # calls alone before sharing is tried, and of how many the mean is what a call alone takes
SOON, EVERY = 10, 100  # shared calls until the next look, twice as many each time: it costs less than a hundredth
HELD_UP = 3  # times the median: such a look says nothing of what calls take; the first one after a pause takes twice
LEAST_REST, MOST_REST = 10, 200  # times what was lost; it doubles from trial to trial
UNPROVEN_REST = 0.1  # seconds of calls at least, where sharing has never won: nobody misses what he never had
UNSEEN = 1e-5  # seconds that sharing a call, timing and noting it take beyond those noted, where caches are cold
WAKING = 3e-4  # seconds that a trial may lose: a helper that sleeps costs the first call more than it takes alone
LIMIT = 0.01  # seconds that are won or lost at most: two or three turns of another process on a processor
RISK = 0.002  # seconds: what sharing is thought to lose at first where no processor is free


class Account:
    """What shared calls of one program have won against calls alone, and whether to share the next one.

    How long helpers take to come, and whether other processes or the host of a virtual machine let them run, is not
    known beforehand. So each shared call adds to the balance what it was faster than a call alone, or takes from it
    what it was slower. What a call alone takes is the mean of the last looks: a mean, as the balance sums whole times
    and the first call after a pause counts like others, and of looks that lie apart, for the same call takes a quarter
    longer in some seconds than in others. Where more is lost than a call takes, or than waking a helper may cost, calls
    go alone for ten times as long as what was lost, and then sharing is tried again; if that loses, too, for twenty
    times as long, and so on up to two hundred. Where sharing has never won, they rest for a tenth of a second at least,
    so that short calls which cannot win lose no more than one trial at first. They begin with a rest where no processor
    is free. So in the long run calls take less than a hundredth longer than alone, and a machine that has become free
    is noticed. Calls that rest are not even timed: where they come one by one, the processor's caches know nothing of
    Python, and each line of it counts.
    """

    def __init__(self) -> None:
        self._balance = 0.0  # seconds
        self.rest = 0  # calls that go alone from now on, with nothing to note; whoever makes one counts it
        self._alone: list[float] = []  # seconds of the last looks since calls rested
        self._usual = 0.0  # seconds of a call alone, once that is known
        self._factor = LEAST_REST
        self._has_won = False
        self.to_share = 1  # calls until the next look, none while calls rest; the first of all finds everything cold
        self._spacing = SOON

    def note(self, seconds: float, was_shared: bool) -> None:
        """Note how long a call took that did not rest."""
        if was_shared:
            self.to_share -= 1
            if self._usual:
                self._settle(self._usual - seconds - UNSEEN)
            return
        self._alone.append(seconds)
        if len(self._alone) < LOOKS:
            return
        is_first, self._usual = not self._usual, self._find_usual()
        if is_first and processors.are_all_taken():
            self._pause(LEAST_REST * RISK)
        else:
            self.to_share = self._spacing
            self._spacing = min(EVERY, 2 * self._spacing)

    def _find_usual(self) -> float:
        del self._alone[:-KEPT]
        middle = sorted(self._alone)[len(self._alone) // 2]
        alone = [each for each in self._alone if each <= HELD_UP * middle]
        return sum(alone) / len(alone)

    def _settle(self, won: float) -> None:
        self._balance = max(-LIMIT, min(LIMIT, self._balance + won))
        if self._balance == LIMIT:
            self._factor, self._has_won = LEAST_REST, True
        elif self._balance < -min(max(self._usual, WAKING), LIMIT / 2):
            seconds = self._factor * -self._balance
            self._pause(seconds if self._has_won else max(seconds, UNPROVEN_REST))
            self._factor = min(MOST_REST, 2 * self._factor)

    def _pause(self, seconds: float) -> None:
        """Have as many calls rest as take so long, and then look again."""
        self.rest = int(seconds / self._usual) + 1
        self._balance, self.to_share, self._spacing = 0.0, 0, SOON
        self._alone.clear()
