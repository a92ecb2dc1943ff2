"""Time calls that come one by one, on one thread and on several in turn: `python -m tools.two_threads`.

Between two calls nothing is done (`row`), or the process sleeps (`sleep 5`: 5 ms), or NumPy sorts (`work 5`). `--loads`
says how many other processes keep the processors busy meanwhile. The mean counts: what holds up a call now and then is
what hurts. A ratio is the mean of several threads over that of one, from blocks of both in turn; `control` is the ratio
of one thread to one thread, of a network opened a second time: what it is away from 1, nobody is slower or faster.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

import minimobile as mm
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import RunOptions
from tools.bench_cases import random_weights, v1, v2
from tools.speed import Network, quantize

NETWORKS = {
    "V1 0.25 96": Network(v1, 0.25, 96),
    "V1 0.25 128": Network(v1, 0.25, 128),
    "V2 0.35 128": Network(v2, 0.35, 128),
    "V2 0.35 224": Network(v2, 0.35, 224),
    "V1 0.5 160": Network(v1, 0.5, 160),
    "V2 1.0 224": Network(v2, 1.0, 224),
}
GAPS = ("row", "sleep 1", "sleep 5", "sleep 20", "work 5")
BLOCK = 0.25  # seconds: several turns of a scheduler
OPENED = 4  # times in a row of the table
BUSY = "while True: pass"
Call = Callable[[], object]
Open = Callable[[int], Call]
"""From a number of threads to a call, from array to array, of a network that has memory of its own."""


class Cell(NamedTuple):
    """Milliseconds of single calls of one network in floats or bytes, with a gap and a load.

    `times` has those on one thread, on several, and on one again.
    """

    network: str
    gap: str
    load: int
    times: list[list[float]]


def prepare_floats(network: Network, folder: Path) -> Open:
    """Return what opens the network in floats."""
    graph = network.model(network.width).graph
    weights = random_weights(graph)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, network.size, network.size)).astype(np.float32)

    def open_network(threads: int) -> Call:
        runner = CompiledRunner(graph, weights, RunOptions(num_threads=threads))
        return lambda: runner.run(x, graph.outputs)

    return open_network


def prepare_bytes(network: Network, folder: Path) -> Open:
    """Return what opens the network with int8 weights per channel."""
    path = Path(folder, f"{network.model.__name__} {network.width} {network.size}.tflite")
    quantize(network, path)
    stored = mm.load(path).quantized_input
    x = np.random.default_rng(0).integers(0, 256, stored.shape, np.uint8).view(stored.dtype)

    def open_network(threads: int) -> Call:
        model = mm.load(path, num_threads=threads)
        return lambda: model.run_quantized(x)

    return open_network


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep so many processes computing meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def read_gap(text: str) -> str:
    """Return the name of what lies between two calls. Raises ValueError for another."""
    if text != "row":
        kind, milliseconds = text.split()
        if kind not in ("sleep", "work") or not 0 <= float(milliseconds) < 1e4:
            raise ValueError(text)
    return text


def wait_as(gap: str, values: np.ndarray) -> None:
    """Let the time between two calls pass."""
    if gap == "row":
        return
    kind, milliseconds = gap.split()
    if kind == "sleep":
        time.sleep(float(milliseconds) / 1e3)
        return
    end = time.perf_counter() + float(milliseconds) / 1e3
    while time.perf_counter() < end:
        np.sort(values)


def time_calls(open_network: Open, counts: Sequence[int], gap: str, seconds: float) -> list[list[float]]:
    """Return the milliseconds of single calls for each number of threads, a block of each in turn.

    The network is opened anew several times: how its memory happens to lie makes a tenth, where caches are cold. The
    first block of each is not counted, in which it is found out whether helpers make calls faster.
    """
    times: list[list[float]] = [[] for _ in counts]
    values = np.random.default_rng(0).standard_normal(30_000)
    for _ in range(OPENED):
        calls = [open_network(threads) for threads in counts]
        for block in range(1 + max(1, round(seconds / OPENED / BLOCK / len(counts)))):
            for own, call in zip(times, calls, strict=True):
                taken = time_block(call, gap, values)
                own.extend(taken if block else [])
    return times


def time_block(call: Call, gap: str, values: np.ndarray) -> list[float]:
    """Return the milliseconds of single calls, for as long as a block is."""
    times: list[float] = []
    end = time.perf_counter() + BLOCK
    while not times or time.perf_counter() < end:
        wait_as(gap, values)
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def heading(threads: int) -> str:
    """Return the first two lines of a Markdown table: mean and median by number of threads, and ratios of means."""
    heads = ["network", "between calls", "busy", *(f"{each}, {n}" for each in ("mean", "median") for n in (1, threads))]
    heads += ["ratio", "control"]
    return "| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|"


def row(cell: Cell) -> str:
    """Return a line of the table; ratios are means of several threads, and of one thread again, over that of one."""
    one, several, again = (statistics.fmean(taken) for taken in cell.times)
    medians = [statistics.median(taken) for taken in cell.times[:2]]
    figures = " | ".join(f"{each:.3f}" for each in (one, several, *medians))
    return f"| {cell.network} | {cell.gap} | {cell.load} | {figures} | {several / one:.2f} | {again / one:.2f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time what the command line names, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--kinds", nargs="+", choices=("floats", "bytes"), default=["floats", "bytes"])
    parser.add_argument("--gaps", nargs="+", type=read_gap, default=GAPS, metavar="GAP", help=f"of: {', '.join(GAPS)}")
    parser.add_argument("--loads", nargs="+", type=int, default=[0, 1], help="busy processes beside this one")
    parser.add_argument("--threads", type=int, default=2, help="two or more")
    parser.add_argument("--seconds", type=float, default=4.5, help="for each row of the table")
    given = parser.parse_args(arguments)
    if given.threads < 2 or min(given.loads) < 0 or given.seconds <= 0:
        parser.error("expected two threads or more, no fewer than 0 busy processes, and some seconds")
    counts = 1, given.threads, 1
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"floats": prepare_floats, "bytes": prepare_bytes}
        networks = {
            f"{name}, {kind}": kinds[kind](NETWORKS[name], Path(folder))
            for name in given.networks
            for kind in given.kinds
        }
        sys.stdout.write(heading(given.threads) + "\n")
        for load in given.loads:
            with busy_processes(load):
                for name, open_network in networks.items():
                    for gap in given.gaps:
                        times = time_calls(open_network, counts, gap, given.seconds)
                        sys.stdout.write(row(Cell(name, gap, load, times)) + "\n")
                        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
