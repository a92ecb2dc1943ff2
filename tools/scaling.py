"""How much faster two threads are than one: `python -m tools.scaling [FILE.tflite...] [--only WORD...]`.

Times float networks, quantised ones that it makes itself (`speed.NETWORKS`), and the files that are named, on one
thread and on several in turn, in one process, and says which reach what is demanded of their size. The first line is
what the machine gave meanwhile: one thread multiplies in registers, or reads from memory, alone and while others do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
READ = 1 << 25  # bytes that are read from memory at once, of each thread's own: far more than its second-level cache
READS = 40
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
Machine = dict[str, tuple[float, float]]  # what one thread does, and several at once, by what it is


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


def measure(files: Sequence[str], only: Sequence[str], threads: int, seconds: float) -> tuple[list[Row], list[Machine]]:
    """Return a row per network whose name has one of the words `only`, or of all, and what the machine gave meanwhile.

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
    machine = [measure_machine(threads)]
    for _ in range(ROUNDS):
        for name, (_, runs) in opened.items():
            for index, taken in enumerate(_take_turns(runs, seconds / ROUNDS)):
                times[name][index] += taken
        machine.append(measure_machine(threads))
    rows: list[Row] = [
        {"case": name, "multiply_adds": opened[name][0], "one": _summarise(one), "several": _summarise(several)}
        for name, (one, several) in times.items()
    ]
    return rows, machine


def _take_turns(runs: Sequence[Run], seconds: float) -> list[list[float]]:
    return list(take_turns({str(index): run for index, run in enumerate(runs)}, seconds).values())


def _summarise(times: Sequence[float]) -> dict[str, float]:
    return {"minimum": min(times), "median": statistics.median(times)}


def _make_integers(network: speed.Network, path: Path, threads: Sequence[int]) -> tuple[int, list[Run]]:
    speed.quantize(network, path)
    return open_integers(path, threads)


def measure_machine(threads: int) -> Machine:
    """Return what one thread does alone, and several at once: multiply-adds in registers, and reads from memory."""
    return {what: (one(), _together(one, threads)) for what, one in MACHINE.items()}


def _together(measure_one: Callable[[], float], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        return sum(each.result() for each in [pool.submit(measure_one) for _ in range(threads)])


def _measure_reads() -> float:
    """Return the bytes a second that this thread reads from memory."""
    floats, times = np.ones(READ // 4, np.float32), []
    for _ in range(READS):
        start = time.perf_counter()
        floats.max()
        times.append(time.perf_counter() - start)
    return READ / statistics.median(times)


MACHINE = {"did the multiply-adds in registers": measure_peak, "read from memory": _measure_reads}


def describe(machine: Sequence[Machine], threads: int) -> str:
    """Return in a sentence the least and the most that several threads did, of what one did at its best."""
    found = []
    for what in MACHINE:
        best = max(each[what][0] for each in machine)
        together = [each[what][1] / best for each in machine]
        found.append(f"{what} {min(together):.2f} to {max(together):.2f} times")
    return f"Meanwhile {threads} threads at once {' and '.join(found)} as fast as one at its best."


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
    rows, machine = measure(options.files, options.only, options.threads, options.seconds)
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return 0
    print(describe(machine, options.threads), table(rows, options.threads), sep="\n\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mm.MinimobileError as error:
        sys.exit(f"error: {error}")
