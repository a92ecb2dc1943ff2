"""Pictures a second from files to rows: ours beside other runtimes with their usual preprocessing, in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minimobile.bulk.options import BulkOptions
from minimobile.bulk.part_runner import PartRunner
from minimobile.comparison.rival_pictures import Classify, prepare_classifier

TURN = 100  # pictures


def compare_rates(
    source: str, pictures: Sequence[Path], against: Sequence[str], threads: int, rounds: int = 3, task: str = "classify"
) -> dict[str, float]:
    """Return {runtime: pictures a second}, the fastest of some rounds over the same pictures.

    Each picture is read, decoded, brought to the network's size and classified by one of `threads` threads, which
    compute alone; loading is not counted. Ours are whole rows of `minimobile run`, hash and labels included. The others
    get the same network and do what `prepare_classifier` says, so that `against` is for classification alone.
    """
    runner = PartRunner(BulkOptions(source, task, "jsonl"), threads)
    contestants: dict[str, Callable[[Sequence[Path]], Any]] = {
        "minimobile": lambda some: runner.compute([str(path) for path in some])
    }
    with ThreadPoolExecutor(threads) as pool:
        for name in against:
            classify = _make_rival(name, source, runner.model)
            classify(pictures[0])  # OpenVINO never returns where its first two calls come at the same time
            contestants[name] = partial(_classify_all, pool, classify)
        for run in contestants.values():
            run(pictures[:TURN])
        seconds = {name: [0.0] * rounds for name in contestants}
        for number in range(rounds):
            for first in range(0, len(pictures), TURN):
                for name, run in contestants.items():
                    start = time.perf_counter()
                    run(pictures[first : first + TURN])
                    seconds[name][number] += time.perf_counter() - start
    return {name: len(pictures) / min(taken) for name, taken in seconds.items()}


def _make_rival(name: str, source: str, model: Any) -> Classify:
    """Return what classifies one picture; a thread gets a runtime of its own, for not all can be shared."""
    own = threading.local()

    def classify(path: Path) -> NDArray[Any]:
        if not hasattr(own, "run"):
            own.run = prepare_classifier(name, source, model, 1)
        found: NDArray[Any] = own.run(path)
        return found

    return classify


def _classify_all(pool: ThreadPoolExecutor, classify: Classify, pictures: Sequence[Path]) -> None:
    for _ in pool.map(classify, pictures):
        pass
