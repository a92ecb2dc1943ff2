"""Photographs from their files to their classes: our time and what it is made of, beside other runtimes, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np

from minimobile.comparison.bench import take_turns
from minimobile.comparison.rival_pictures import prepare_classifier
from minimobile.comparison.rivals import IN_INTEGERS
from minimobile.imaging.pictures import open_image
from minimobile.models.auto import load
from minimobile.models.classification import classify

ROUNDS = 3  # at least, of all photographs


class PhotographTimes(NamedTuple):
    """Milliseconds of every photograph, each the minimum of its calls: of every runtime, and of parts of ours."""

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

    Decoding is Pillow's and the same for all. A quantised file is left out where a runtime has none of integers.
    """
    model: Any = load(source, num_threads=num_threads)
    rivals = [name for name in against if not model.is_quantized or name in ("litert", *IN_INTEGERS)]
    calls: dict[str, Callable[[Path], Any]] = {"minimobile": partial(classify, model=model)}
    calls.update({name: prepare_classifier(name, source, model, num_threads) for name in rivals})
    parts: dict[Path, list[tuple[float, float]]] = {photograph: [] for photograph in photographs}
    calls["parts"] = lambda photograph: parts[photograph].append(_time_parts(model, photograph))
    turns = {(name, each): partial(call, each) for each in photographs for name, call in calls.items()}
    times = take_turns(turns, seconds, ROUNDS)
    del calls["parts"]
    whole = {name: [min(times[name, each]) for each in photographs] for name in calls}
    least = [tuple(map(min, zip(*parts[each], strict=True))) for each in photographs]
    return PhotographTimes(whole, [decoding for decoding, _ in least], [network for _, network in least])


def _time_parts(model: Any, photograph: Path) -> tuple[float, float]:
    """Return the milliseconds of decoding and of the network, one after the other as in `classify`: it finds caches as
    decoding has left them.
    """
    start = time.perf_counter()
    picture = open_image(photograph)
    decoded = time.perf_counter()
    pixels = model.processor.prepare(picture)
    values = model.runner.store(pixels) if model.is_quantized else np.asarray(pixels)
    ready = time.perf_counter()
    model.run_quantized(values) if model.is_quantized else model(values)
    return (decoded - start) * 1e3, (time.perf_counter() - ready) * 1e3
