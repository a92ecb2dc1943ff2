"""Run over a folder of pictures, kill at random, run again, and compare the table with that of an undisturbed run.

    python tools/soak.py PICTURES... --model SRC --seed 0 --minutes 10 [--task classify] [--engine local]

Each round has a seed of its own, kills up to four runs and then perhaps workers of one (on Ray: the processes of its
actors), goes on until a run gets through, and must leave the very bytes that the undisturbed run left. Ends with exit
code 1 where one does not, and names its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_KILLS = 4  # of runs in one round; then it may end
MOST_HITS = 2  # at the workers of one run
LONGEST = 3.0  # seconds before a kill
WORKERS = (b"bulk.worker", b"bulk import worker", b"ray::_PartActor")  # as their command lines call them

Start = Callable[[], "subprocess.Popen[bytes]"]


def hash_tables(folder: Path) -> dict[str, str]:
    """Return {name: SHA-256} of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_until_done(seed: int, start: Start, longest: float = LONGEST) -> tuple[int, int]:
    """Start runs, and end each or workers of it at random moments, until one gets through.

    A run whose turn it is loses one worker or all of them, once or twice, each a moment after there are any: a picture
    is blamed for the third that it sees end. Returns how many runs, and how many times workers, were killed.
    `longest` is in seconds.
    """
    chance = random.Random(seed)
    runs = workers = 0
    while True:
        process = start()
        hits = 0 if chance.random() < 0.5 else chance.randint(1, MOST_HITS)
        for _ in range(hits):
            while process.poll() is None and not find_workers(process.pid):
                time.sleep(0.05)
            _wait(process, chance.uniform(0, 1) * longest)
            found = find_workers(process.pid)
            if process.poll() is None and found:
                workers += 1
                for worker in found if chance.random() < 0.5 else [chance.choice(found)]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
        if hits or runs >= MOST_KILLS:
            process.wait()
            return runs, workers
        _wait(process, chance.uniform(0.1, 1) * longest)
        if process.poll() is not None:
            return runs, workers
        runs += 1
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.wait()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)


def find_workers(run: int) -> list[int]:
    """Return the workers of a run: of all processes below it, as /proc has them, those that compute parts."""
    children: dict[int, list[int]] = {}
    workers = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        children.setdefault(above, []).append(int(path.name))
        if any(word in command for word in WORKERS):
            workers.append(int(path.name))
    below = [run]
    for process in below:
        below += children.get(process, [])
    return [process for process in workers if process in below]


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds before a kill")
    for name, value in {"task": "classify", "engine": "local", "format": "jsonl", "rows-per-part": "100"}.items():
        parser.add_argument(f"--{name}", default=value)
    given = parser.parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    words = [*given.pictures, "--model", given.model, "--task", given.task, "--engine", given.engine]
    words += ["--format", given.format, "--rows-per-part", given.rows_per_part]

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "minimobile", "run", *words, "--out", str(out)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        if start(scratch / "whole").wait() not in (0, 1):
            sys.stderr.write("the undisturbed run failed: see what the same `minimobile run` says\n")
            return 1
        expected = hash_tables(scratch / "whole")
        return _soak(
            given.seed, given.minutes, given.longest, lambda: start(scratch / "out"), scratch / "out", expected
        )
    finally:
        shutil.rmtree(scratch)


def _soak(seed: int, minutes: float, longest: float, start: Start, out: Path, expected: dict[str, str]) -> int:
    rounds = killed_runs = killed_workers = 0
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        shutil.rmtree(out, ignore_errors=True)
        runs, workers = kill_until_done(seed + rounds, start, longest)
        found = hash_tables(out)
        if found != expected:
            names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            sys.stdout.write(f"seed {seed + rounds}: another table, or rubbish beside it: {', '.join(names)[:500]}\n")
            return 1
        rounds, killed_runs, killed_workers = rounds + 1, killed_runs + runs, killed_workers + workers
    sys.stdout.write(
        f"{rounds} rounds, {killed_runs} runs and {killed_workers} times their workers killed, "
        f"{len(expected)} files the same each time\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
