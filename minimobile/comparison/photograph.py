"""One photograph from its file to its classes: our time and what it is made of, beside other runtimes, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minimobile.comparison.bench import take_turns
from minimobile.comparison.rival_pictures import prepare_classifier
from minimobile.comparison.rivals import IN_INTEGERS
from minimobile.imaging.pictures import open_image
from minimobile.models.auto import load
from minimobile.models.classification import classify


class PhotographTimes(NamedTuple):
    """Milliseconds, each the minimum of many calls: of every runtime from file to classes, and of parts of ours."""

    whole: dict[str, float]
    decoding: float
    network: float

    @property
    def rest(self) -> float:
        """What is left of ours: resizing, normalising, the softmax, sorting, and all that is Python's."""
        return self.whole["minimobile"] - self.decoding - self.network


def compare_photograph(
    source: str | Path, photograph: Path, against: Sequence[str], num_threads: int, seconds: float = 4.0
) -> PhotographTimes:
    """Time `classify` on a file in turn with other runtimes, all on `num_threads` threads.

    Decoding is Pillow's and the same for all. A quantised file is left out where a runtime has none of integers.
    """
    model: Any = load(source, num_threads=num_threads)
    rivals = [name for name in against if not model.is_quantized or name in ("litert", *IN_INTEGERS)]
    contestants: dict[str, Callable[[], Any]] = {"minimobile": partial(classify, photograph, model)}
    for name in rivals:
        contestants[name] = partial(prepare_classifier(name, source, model, num_threads), photograph)
    parts: list[tuple[float, float]] = []
    times = take_turns({**contestants, "parts": lambda: parts.append(_time_parts(model, photograph))}, seconds)
    decoding, network = map(min, zip(*parts, strict=True))
    return PhotographTimes({name: min(times[name]) for name in contestants}, decoding, network)


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
