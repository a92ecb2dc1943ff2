"""Measure what `minimobile run` takes, and compute what many pictures cost: the tables of docs/scale.md.

    python tools/scale.py memory PICTURES --model SRC [--task classify] [--counts 1000 5000 20000]
    python tools/scale.py plan [--counts 1000 1000000]
    python tools/scale.py cost PICTURES --model SRC [--task classify]
    python tools/scale.py rate PICTURES --model SRC [--counts 1000 3000] [--beside CHECKOUT]

`memory` prints the peak memory of the parent and of its largest worker over so many pictures (links to those of the
folder), `plan` that of listing and planning so many paths, and `cost` what a million and a billion pictures take,
from the processor time, the bytes and the listing of a run over the folder. `rate` prints the pictures a second of the
command `classify` without what it takes to start: by the difference of two counts, in turn with that of another
checkout of the project. Needs /proc.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from minimobile.bulk.entries import list_entries
from minimobile.bulk.run import ROWS_PER_PART, SUCCESS, run
from minimobile.errors import FormatError, MinimobileError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.soak import find_workers

ROUNDS = 2
KEYS_PER_REQUEST = 1000  # of an object store's listing
REQUESTS_PER_PICTURE = 2  # its size, and its bytes
PLANNING = """
import sys
from pathlib import Path
from minimobile.bulk.entries import list_entries
from minimobile.bulk.plan import freeze_plan
import minimobile.bulk.run
folder = Path(sys.argv[1])
freeze_plan(folder, list_entries([folder / "paths.txt"]), 1000, 1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Measured(NamedTuple):
    """What one picture takes: seconds of a processor, bytes of its row and of its entry in the plan, listing."""

    seconds: float
    row_bytes: float
    plan_bytes: float
    listing_seconds: float


def link_pictures(pictures: Sequence[Path], folder: Path, count: int) -> Path:
    """Make a folder of `count` links to some pictures."""
    folder.mkdir()
    for number in range(count):
        picture = pictures[number % len(pictures)].resolve()
        (folder / f"{number:07d}{picture.suffix}").symlink_to(picture)
    return folder


def measure_run(folder: Path, out: Path, model: str, task: str, layers: Sequence[str] = ()) -> tuple[float, float]:
    """Return the peak memory in MiB of a run's parent and of its largest worker."""
    words = ["run", str(folder), "--task", task, "--model", model, "--out", str(out), "--format", "jsonl"]
    words += [word for layer in layers for word in ("--layer", layer)]
    process = subprocess.Popen([sys.executable, "-m", "minimobile", *words], stdout=subprocess.DEVNULL)
    parent = worker = 0.0
    while process.poll() is None:
        parent = max(parent, _peak(process.pid))
        worker = max([worker, *map(_peak, find_workers(process.pid))])
        time.sleep(0.1)
    if not (out / SUCCESS).exists():
        raise FormatError(f"{folder}: expected a run that gets through, but it ended with {process.returncode}")
    return parent, worker


def measure_rates(folders: Sequence[Path], model: str, checkouts: Sequence[Path | None]) -> list[float]:
    """Return the pictures a second of `classify`, start excluded, of the installed version (None) and of others.

    `folders` hold fewer pictures and more of them; the fastest of `ROUNDS` counts.
    """
    seconds: dict[tuple[Path | None, Path], float] = {}
    for _ in range(ROUNDS):
        for folder in folders:
            for checkout in checkouts:
                path = {} if checkout is None else {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'kernels'}"}
                command = [sys.executable, "-m", "minimobile", "classify", str(folder), "--model", model]
                start = time.perf_counter()
                subprocess.run(
                    [*command, "--format", "json"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env={**os.environ, **path}, cwd=folder.parent,
                )  # fmt: skip
                taken = time.perf_counter() - start
                seconds[checkout, folder] = min(taken, seconds.get((checkout, folder), taken))
    few, many = folders
    more = len(list(many.iterdir())) - len(list(few.iterdir()))
    return [more / (seconds[checkout, many] - seconds[checkout, few]) for checkout in checkouts]


def measure_plan(count: int) -> float:
    """Return the peak memory in MiB of a process that lists and plans `count` paths."""
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "paths.txt").open("w") as file:
            for number in range(count):
                file.write(f"/data/pictures/2026/{number % 1000:04d}/photo_{number:08d}.jpg\n")
        done = subprocess.run([sys.executable, "-c", PLANNING, folder], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def measure_costs(folder: Path, scratch: Path, model: str, task: str) -> Measured:
    """Return what a picture of a folder takes; a run over one of them is taken for what starting costs."""

    def time_run(sources: list[Path], out: Path) -> float:
        before = _processor_seconds()
        run(sources, out, task=task, model=model, table_format="jsonl")
        return _processor_seconds() - before

    start = time.perf_counter()
    entries = list_entries([folder])
    listing = time.perf_counter() - start
    one = time_run([Path(str(entries[0]))], scratch / "one")
    whole = time_run([folder], scratch / "whole")
    count = len(entries)
    row_bytes = sum(path.stat().st_size for path in (scratch / "whole").rglob("*") if not path.name.startswith("_plan"))
    plan_bytes = (scratch / "whole" / "_plan-0001.jsonl").stat().st_size
    return Measured((whole - one) / (count - 1), row_bytes / count, plan_bytes / count, listing / count)


def cost_table(measured: Measured) -> str:
    """Return a Markdown table of what a million and a billion pictures cost."""
    rows: dict[str, Callable[[int], str]] = {
        "hours of one core": lambda count: f"{count * measured.seconds / 3600:,.1f}",
        "table (JSON lines)": lambda count: _size(count * measured.row_bytes),
        "plan": lambda count: _size(count * measured.plan_bytes),
        "parts": lambda count: f"{count // ROWS_PER_PART:,}",
        "listing a local disk": lambda count: f"{count * measured.listing_seconds:,.0f} s",
        "listing an object store": lambda count: f"{count // KEYS_PER_REQUEST:,} requests",
        "reading from it": lambda count: f"{count * REQUESTS_PER_PICTURE:,} requests",
    }
    lines = ["| | a million | a billion |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {show(10**6)} | {show(10**9)} |" for name, show in rows.items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "plan", "cost", "rate"))
    parser.add_argument("pictures", nargs="?", type=Path, help="a folder, for memory and cost")
    parser.add_argument("--model", default="demo:digits")
    parser.add_argument("--task", default="classify")
    parser.add_argument("--layer", action="append", default=[], help="of the task features")
    parser.add_argument("--counts", nargs="+", type=int)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another version, for rate")
    given = parser.parse_args(arguments)
    if given.what == "plan":
        for count in given.counts or (1000, 10**6):
            sys.stdout.write(f"{count:,} paths: {measure_plan(count):.0f} MiB\n")
        return 0
    if given.pictures is None:
        parser.error(f"{given.what} needs a folder of pictures")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.what == "cost":
            measured = measure_costs(given.pictures, folder, given.model, given.task)
            sys.stdout.write(
                f"{1 / measured.seconds:.0f} pictures a second of a core, {measured.row_bytes:.0f} bytes a row\n\n"
            )
            sys.stdout.write(cost_table(measured) + "\n")
            return 0
        pictures = sorted(path for path in given.pictures.iterdir() if path.is_file())
        if given.what == "rate":
            few, many = sorted(given.counts or (1000, 3000))
            folders = [link_pictures(pictures, folder / f"pictures{count}", count) for count in (few, many)]
            checkouts = [None, *([given.beside.absolute()] if given.beside else [])]
            rates = measure_rates(folders, given.model, checkouts)
            for name, rate in zip(("installed", "beside"), rates, strict=False):
                sys.stdout.write(f"{name}: {rate:.0f} pictures a second\n")
            return 0
        for count in given.counts or (1000, 5000, 20000):
            linked = link_pictures(pictures, folder / f"pictures{count}", count)
            parent, worker = measure_run(linked, folder / f"out{count}", given.model, given.task, given.layer)
            sys.stdout.write(f"{count:,} pictures: parent {parent:.0f} MiB, worker {worker:.0f} MiB\n")
            sys.stdout.flush()
    return 0


def _peak(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def _processor_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinimobileError as error:
        sys.exit(f"error: {error}")
