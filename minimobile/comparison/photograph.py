"""Photographs from their files to their classes: our time and what it is made of, beside other runtimes, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from minimobile.comparison.bench import take_turns
from minimobile.comparison.rival_pictures import prepare_classifier
from minimobile.comparison.rivals import IN_INTEGERS
from minimobile.imaging import inputs
from minimobile.models.auto import load
from minimobile.models.classification import classify

ROUNDS = 3  # at least, of all photographs


class PhotographTimes(NamedTuple):
    """Milliseconds of every photograph, of every runtime's fastest call, and of two parts of ours in that very call."""

    whole: dict[str, list[float]]
    decoding: list[float]
    network: list[float]

    @property
    def means(self) -> dict[str, float]:
        """The mean over the photographs of every runtime."""
        return {name: fmean(times) for name, times in self.whole.items()}

    @property
    def rest(self) -> float:
        """What is left of our mean: resizing, normalising, the softmax, sorting, and all that is Python's."""
        return self.means["minimobile"] - fmean(self.decoding) - fmean(self.network)

    @property
    def ratio(self) -> float:
        """Our mean over that of the fastest other."""
        ours, *others = self.means.values()
        return ours / min(others)

    @property
    def median_ratio(self) -> float:
        """The median over the photographs of our time over that of whoever is fastest on each."""
        ours, *others = self.whole.values()
        return float(median(our / min(other) for our, *other in zip(ours, *others, strict=True)))


def compare_photographs(
    source: str | Path, photographs: Sequence[Path], against: Sequence[str], num_threads: int, seconds: float = 4.0
) -> PhotographTimes:
    """Time `classify` on files, on each of them in turn with other runtimes, all on `num_threads` threads.

    Decoding is Pillow's and the same for all. The parts of ours, of which the network is timed from array to array, are
    those of the fastest call: the least of each by itself would come from several calls, and what is left after them
    would be charged with how far these differ, which is a tenth of a millisecond and more. A quantised file is left out
    where a runtime has none of integers.
    """
    model: Any = load(source, num_threads=num_threads)
    rivals = [name for name in against if not model.is_quantized or name in ("litert", *IN_INTEGERS)]
    calls: dict[str, Callable[[Path], Any]] = {
        name: prepare_classifier(name, source, model, num_threads) for name in rivals
    }
    ours: dict[Path, list[tuple[float, float, float]]] = {photograph: [] for photograph in photographs}
    runner = model.runner.engine if model.is_quantized else model.runner
    with _timed(inputs, "open_image") as decoding, _timed(runner, "run") as network:

        def dissect(photograph: Path) -> None:
            start = time.perf_counter()
            classify(photograph, model)
            whole = time.perf_counter() - start
            ours[photograph].append((whole * 1e3, decoding[0] * 1e3, network[0] * 1e3))

        calls = {"minimobile": dissect, **calls}
        turns = {(name, each): partial(call, each) for each in photographs for name, call in calls.items()}
        times = take_turns(turns, seconds, ROUNDS)
    whole = {name: [min(times[name, each]) for each in photographs] for name in rivals}
    fastest = [min(ours[each]) for each in photographs]
    ours_whole, ours_decoding, ours_network = (list(each) for each in zip(*fastest, strict=True))
    return PhotographTimes({"minimobile": ours_whole, **whole}, ours_decoding, ours_network)


@contextmanager
def _timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Have a function of an object or a module say what its last call took, in seconds."""
    function, seconds = getattr(owner, name), [0.0]

    def run(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **named)
        seconds[0] = time.perf_counter() - start
        return result

    setattr(owner, name, run)
    try:
        yield seconds
    finally:
        setattr(owner, name, function)
