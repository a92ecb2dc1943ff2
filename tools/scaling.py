"""How much faster two threads are than one: `python -m tools.scaling [FILE.tflite...] [--only WORD...]`.

Times float networks, quantised ones that it makes itself (`speed.NETWORKS`), and the files that are named, on one
thread and on several in turn, in one process, and says which reach what is demanded of their size. The first row is
what the machine gives: one thread multiplies in registers alone, and then while another does the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minimobile as mm
from minimobile.comparison.bench import measure_peak, take_turns
from minimobile.comparison.sized_network import Shape, compared_outputs
from minimobile.costs.profile import profile
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import RunOptions
from minimobile.models.classes import MobileNetModel
from tools import speed
from tools.bench_cases import detector, random_weights, segmentation, v1, v2

ROUNDS = 3
DEMANDS = ((100_000_000, 1.8), (15_000_000, 1.4), (0, 1.0))  # multiply-adds and the ratio that is demanded from there
FLOATS: dict[str, tuple[Callable[[], MobileNetModel], Shape]] = {
    "V1 0.25 128": (partial(v1, 0.25), (1, 3, 128, 128)),
    "V2 0.35 128": (partial(v2, 0.35), (1, 3, 128, 128)),
    "V1 0.25 224": (partial(v1, 0.25), (1, 3, 224, 224)),
    "V2 0.35 224": (partial(v2, 0.35), (1, 3, 224, 224)),
    "V1 0.5 224": (partial(v1, 0.5), (1, 3, 224, 224)),
    "V1 0.75 224": (partial(v1, 0.75), (1, 3, 224, 224)),
    "V1 1.0 192": (partial(v1, 1.0), (1, 3, 192, 192)),
    "V1 1.0 224": (partial(v1, 1.0), (1, 3, 224, 224)),
    "V2 0.75 224": (partial(v2, 0.75), (1, 3, 224, 224)),
    "V2 1.0 224": (partial(v2, 1.0), (1, 3, 224, 224)),
    "V2 1.4 224": (partial(v2, 1.4), (1, 3, 224, 224)),
    "V2 1.0 224 batch 8": (partial(v2, 1.0), (8, 3, 224, 224)),
    "SSDLite V2 1.0 300": (detector, (1, 3, 300, 300)),
    "DeepLab V2 1.0 513": (segmentation, (1, 3, 513, 513)),
}
Run = Callable[[], Any]
Row = dict[str, Any]


def open_floats(name: str, threads: Sequence[int]) -> tuple[int, list[Run]]:
    """Return the multiply-adds of a float network, and its call for every number of threads."""
    make, shape = FLOATS[name]
    model = make()
    weights, outputs = random_weights(model.graph), compared_outputs(model.graph)
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    runners = [CompiledRunner(model.graph, weights, RunOptions(num_threads=count)) for count in threads]
    work = profile(model.graph, shape[2:]).multiply_adds * shape[0]
    return work, [partial(runner.run, x, outputs) for runner in runners]


def open_integers(path: Path, threads: Sequence[int]) -> tuple[int, list[Run]]:
    """Return the same of a quantised file, from its input tensor to its output tensors."""
    models: list[Any] = [mm.load(path, num_threads=count) for count in threads]
    source = models[0].quantized_input
    x = np.random.default_rng(0).integers(0, 256, source.shape, np.uint8).view(source.dtype)
    work = profile(models[0].graph, source.shape[1:3]).multiply_adds
    return work, [partial(model.run_quantized, x) for model in models]


def measure(files: Sequence[str], only: Sequence[str], threads: int, seconds: float) -> list[Row]:
    """Return a row per network whose name has one of the words `only`; all where there is none.

    Every network has its turn `ROUNDS` times, so that what disturbs the machine for a while spoils none of them.
    """
    counts = (1, threads)
    with tempfile.TemporaryDirectory() as folder:
        networks: dict[str, Callable[[], tuple[int, list[Run]]]] = {
            f"{name}, float32": partial(open_floats, name, counts) for name in FLOATS
        }
        for name, network in speed.NETWORKS.items():
            networks[name] = partial(_make_integers, network, Path(folder, f"{name}.tflite"), counts)
        networks |= {Path(path).stem: partial(open_integers, Path(path), counts) for path in files}
        chosen = [name for name in networks if not only or any(word in name for word in only)]
        opened = {name: networks[name]() for name in chosen}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in chosen}
    for _ in range(ROUNDS):
        for name, (_, runs) in opened.items():
            for index, taken in enumerate(_take_turns(runs, seconds / ROUNDS)):
                times[name][index] += taken
    return [
        {"case": name, "multiply_adds": opened[name][0], "one": _summarise(one), "several": _summarise(several)}
        for name, (one, several) in times.items()
    ]


def _take_turns(runs: Sequence[Run], seconds: float) -> list[list[float]]:
    return list(take_turns({str(index): run for index, run in enumerate(runs)}, seconds).values())


def _summarise(times: Sequence[float]) -> dict[str, float]:
    return {"minimum": min(times), "median": statistics.median(times)}


def _make_integers(network: speed.Network, path: Path, threads: Sequence[int]) -> tuple[int, list[Run]]:
    speed.quantize(network, path)
    return open_integers(path, threads)


def measure_machine(threads: int) -> float:
    """Return how many times one core's multiply-adds in registers several threads do."""
    alone = measure_peak()
    found = []

    def measure_one() -> None:
        found.append(measure_peak())

    together = [threading.Thread(target=measure_one) for _ in range(threads)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    return sum(found) / alone


def demanded(work: int) -> float:
    """Return how many times faster two threads have to be."""
    return next(ratio for least, ratio in DEMANDS if work >= least)


def table(rows: Sequence[Row], threads: int) -> str:
    """Return a Markdown table: milliseconds on one thread and on several, and the ratio of minima and of medians."""
    heads = ["network", "million multiply-adds", "1 thread", f"{threads} threads", "speed-up", "of medians", "demanded"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        least, middle = (row["one"][which] / row["several"][which] for which in ("minimum", "median"))
        aim = demanded(row["multiply_adds"])
        cells = (
            row["case"], f"{row['multiply_adds'] / 1e6:.0f}", f"{row['one']['minimum']:.3f}",
            f"{row['several']['minimum']:.3f}", f"{least:.2f}", f"{middle:.2f}",
            f"{aim:.1f}" + (", not met" if least < aim else ""),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE.tflite", help="quantised files to time as well")
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD", help="networks whose names have one of these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="per network")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    machine = measure_machine(options.threads)
    rows = measure(options.files, options.only, options.threads, options.seconds)
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return 0
    print(f"multiply-adds in registers on {options.threads} threads at once: {machine:.2f} times those of one\n")
    print(table(rows, options.threads))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mm.MinimobileError as error:
        sys.exit(f"error: {error}")
