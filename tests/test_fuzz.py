"""The fuzz tool: the same files for the same seed, every verdict where it is due, and a few files of every format."""

from __future__ import annotations

import dataclasses
import queue
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minimobile import formats
from tools import fuzz
from tools.fuzz_files import SUBJECTS

FEW = {"hdf5": 2, "keras-hdf5": 2, "keras": 3}  # each takes a child process


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_few_damaged_files_of_each_format_are_read_or_refused(name: str, tmp_path: Path) -> None:
    reader = fuzz.Reader(name, 0, tmp_path)
    verdicts = [reader.judge(number) for number in range(FEW.get(name, 5))]
    assert not [found for found in verdicts if found[0] not in ("read", "refused")]
    assert "refused" in [verdict for verdict, _ in verdicts]


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_same_seed_makes_the_same_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = SUBJECTS[name]
    sound = subject.sound()
    now = time.time()
    made = []
    for number, later in ((0, 0), (1, 0), (0, 4000)):  # an archive would hold when it was made
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        made.append(subject.mutate(sound, np.random.default_rng([3, number])))
    assert made[0] == made[2]
    assert made[0] != made[1]


def test_another_error_and_other_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = fuzz.Reader("safetensors", 0, tmp_path)
    reader.subject = reader.subject._replace(mutate=lambda files, random: (files, False))
    assert reader.judge(0) == ("read", "")
    sound = formats.read(reader.path)
    other = {name: values + 1 for name, values in sound.weights.items()}
    monkeypatch.setattr(formats, "read", lambda path: dataclasses.replace(sound, weights=other))
    assert reader.judge(0) == ("other weights", "")
    monkeypatch.setattr(formats, "read", lambda path: {}[path])
    assert reader.judge(0)[0] == "error"


PLANTED = {
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": "time.sleep(600)",
}


class Lines(queue.Queue[str]):
    """A child's lines; patience ends at once after what is said of a file that hangs, and otherwise never."""

    last = ""

    def get(self, block: bool = True, timeout: float | None = None) -> str:
        if self.last == "hangs\n":
            raise queue.Empty
        self.last = super().get()
        return "1\n" if self.last == "hangs\n" else self.last


@pytest.mark.parametrize("verdict", PLANTED)
def test_a_crash_and_a_hang_are_told_and_the_next_file_is_read(verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child fails at its second file."""
    found: list[tuple[int, str]] = []
    original = fuzz.subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        script = (
            "import os, signal, time\n"
            f"for number in range({command[-2]}, 4):\n"
            f"    print({'hangs' if verdict == 'hang' else 1!r} if number == 1 else number, flush=True)\n"
            f"    if number == 1: {PLANTED[verdict]}\n"
            "    print(number, 'read', '', sep='\t', flush=True)\n"
        )
        return original([sys.executable, "-c", script], **options)

    monkeypatch.setattr(fuzz.subprocess, "Popen", start)
    monkeypatch.setattr(fuzz.queue, "Queue", Lines)
    monkeypatch.setattr(fuzz, "time", SimpleNamespace(monotonic=lambda: float(len(found))))  # a second for each file
    fuzz.fuzz("picture", 4.0, 0, lambda number, verdict, text: found.append((number, verdict)))
    assert found == [(0, "read"), (1, verdict), (2, "read"), (3, "read")]
