"""Read damaged files and see that nothing worse happens than a refusal: `python tools/fuzz.py FORMAT --seconds 60`.

FORMAT is one of those below, or `all`, which share the seconds. Files are read in child processes with 4 GB of memory
and 20 seconds for each file; the same seed makes the same files. TFLite files of integers that are read are also run.
The contract: a result or a MinimobileError; no crash, no hang, no other error, and no other weights where a checksum or
the file's layout can tell. "unforeseen" is what no reader's own check refused, only the boundary around all of them.
Prints a Markdown table, and how to make each file that broke the contract again (`--only`). Needs the extra `test`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 20.0  # for one file
START = 300.0  # for a child to import, and to read and run sound files, which compiles kernels
MEMORY = 4 * 2**30
RUN_LIMIT = 100_000  # values of the picture of a network that is run
BROKEN = ("crash", "hang", "error", "other weights")
VERDICTS = ("read", "refused", "unforeseen", *BROKEN)

Report = Callable[[int, str, str], None]
"""Hears a file's number, its verdict, and a word on it."""


class Reader:
    """What runs in the child: makes one file after the other from the seed, reads it, says what became of it."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        from tools.fuzz_files import SUBJECTS

        self.name = name
        self.subject = SUBJECTS[name]
        self.seed = seed
        self.folder = folder
        self.path = folder / self.subject.path
        self.sound = self.subject.sound()
        for files in self.subject.more():
            self.read(files)
        self.expected = digest(self.read(self.sound)) if self.subject.has_weights else None

    def read(self, files: dict[str, bytes]) -> Any:
        """Write the files, and read them as a user would: a checkpoint, or an upright picture."""
        from minimobile import formats
        from minimobile.imaging.pictures import convert_image, open_upright

        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        if self.name == "picture":
            return convert_image(open_upright(self.path), "RGB")
        found = formats.read(self.path)
        if found.quantized is not None:
            self.run(found.quantized)
        return found

    def run(self, network: Any) -> None:
        """Run a network of integers once, if its picture is small: the kernels check nothing any more."""
        import numpy as np

        import minimobile as mm

        tensor = network.tensors[network.inputs[0]]
        if np.prod(tensor.shape) <= RUN_LIMIT:
            mm.load(self.path).run_quantized(np.zeros(tensor.shape, tensor.dtype))

    def judge(self, number: int) -> tuple[str, str]:
        """Make file `number`, read it, and return a verdict and a word on it."""
        import numpy as np

        from minimobile.errors import MinimobileError

        files, may_differ = self.subject.mutate(self.sound, np.random.default_rng([self.seed, number]))
        try:
            found = self.read(files)
        except MinimobileError as error:
            is_unforeseen = "cannot be read, it is most likely damaged" in str(error)
            return "unforeseen" if is_unforeseen else "refused", str(error)
        except Exception as error:
            return "error", f"{type(error).__name__}: {error} {traceback.format_exc().splitlines()[-3:-1]}"
        if not may_differ and digest(found) != self.expected:
            return "other weights", ""
        return "read", ""


def digest(checkpoint: Any) -> str:
    """Return a hash of all weights."""
    state = hashlib.sha256()
    for name, values in sorted(checkpoint.weights.items()):
        state.update(f"{name} {values.shape} {values.dtype}".encode() + values.tobytes())
    return state.hexdigest()


def work(name: str, seed: int, folder: Path, first: int, count: int) -> None:
    """Judge `count` files; say a line before each, and one after it."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    reader = Reader(name, seed, folder)
    for number in range(first, first + count):
        say(f"{number}")
        verdict, text = reader.judge(number)
        say(f"{number}\t{verdict}\t{' '.join(text.split())[:400]}")


def say(line: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def fuzz(name: str, seconds: float, seed: int, report: Report, only: int | None = None) -> None:
    """Read damaged files of a format for so many seconds, or one (`only`), and report each.

    The time begins with the first file. A child that crashes or hangs is reported, and another one goes on.
    """
    number, end = only or 0, 0.0
    while not end or time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            where = ["--worker", folder, str(number), "1" if only is not None else "1000000"]
            worker = subprocess.Popen(
                [sys.executable, "-m", "tools.fuzz", name, "--seed", str(seed), *where],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            lines: queue.Queue[str] = queue.Queue()
            threading.Thread(target=_pump, args=(worker.stdout, lines), daemon=True).start()
            verdict = ""
            is_started = is_open = False  # a file was begun; one was begun and is not yet judged
            while not end or time.monotonic() < end or is_open:
                try:
                    line = lines.get(timeout=SECONDS if is_started else START)
                except queue.Empty:
                    verdict = "hang"
                    break
                if not line:
                    verdict = "crash" if is_open or not end else ""
                    break
                fields = line.rstrip("\n").split("\t")
                is_started, is_open = True, len(fields) == 1
                if is_open:
                    number, end = int(fields[0]), end or time.monotonic() + seconds
                else:
                    report(number, fields[1], fields[2])
                    number += 1
            worker.kill()
            error = " ".join(worker.communicate()[1].split())[-1000:]
            if verdict and not end:
                raise SystemExit(f"{name}: the reader did not start: {error}")
            if verdict:
                report(number, verdict, f"exit code {worker.returncode} {error}")
                number += 1
            if only is not None:
                return


def _pump(stream: Any, lines: queue.Queue[str]) -> None:
    with contextlib.suppress(ValueError):  # closed, for its process was ended
        for line in stream:
            lines.put(line)
    lines.put("")


def main() -> int:
    """Fuzz, print the table, and return 1 where the contract was broken."""
    from tools.fuzz_files import SUBJECTS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("format", choices=[*SUBJECTS, "all"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="make and read this one file")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.format, options.seed, Path(options.worker[0]), *map(int, options.worker[1:]))
        return 0
    names = list(SUBJECTS) if options.format == "all" else [options.format]
    say(f"| format | files | {' | '.join(VERDICTS)} |\n|---|{'---|' * (1 + len(VERDICTS))}")
    is_broken = False
    for name in names:
        counts: Counter[str] = Counter()

        def report(number: int, verdict: str, text: str, name: str = name, counts: Counter[str] = counts) -> None:
            counts[verdict] += 1
            if verdict in (*BROKEN, "unforeseen") or options.only is not None:
                command = f"python tools/fuzz.py {name} --seed {options.seed} --only {number}"
                sys.stderr.write(f"{verdict}: {command}: {text}\n")

        fuzz(name, options.seconds / len(names), options.seed, report, options.only)
        say(f"| {name} | {counts.total()} | {' | '.join(str(counts[verdict]) for verdict in VERDICTS)} |")
        is_broken |= any(counts[verdict] for verdict in BROKEN)
    return int(is_broken)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
