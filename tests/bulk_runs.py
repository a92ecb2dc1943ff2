"""Folders of small pictures with everything that goes wrong in them, and runs over them that are killed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import minimobile as mm
from minimobile.bulk.run import Summary, run

MODEL = "demo:digits"
KILLER = b"this picture ends the process that reads it"
CRASHING_WORKER = """
import os, signal
from minimobile.bulk import part_runner, worker
opened = part_runner.open_image
def open_image(content, **options):
    if content == {killer!r}:
        os.kill(os.getpid(), signal.SIGSEGV)
    return opened(content, **options)
part_runner.open_image = open_image
worker.main()
"""


def crashing_command() -> tuple[str, ...]:
    """Return the command of a worker whose decoder dies of `KILLER`."""
    return (sys.executable, "-c", CRASHING_WORKER.format(killer=KILLER))


def make_pictures(folder: Path, count: int) -> Path:
    """Make a folder of small pictures, some of them below it."""
    random = np.random.default_rng(5)
    for number in range(count):
        place = folder / (f"{number % 3}" if number % 2 else ".")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((70 + number, 64)).save(place / f"{number:03d}.png")
    return folder


def make_trouble(folder: Path) -> Path:
    """Add to a folder of pictures what is none: 8 entries with an error, and one link to a picture."""
    whole = (folder / "000.png").read_bytes()
    (folder / "bomb.png").write_bytes(_png_header(12000, 12000))
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    (folder / "link.png").symlink_to(folder / "000.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside\nit.png").write_bytes(whole[:100])
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"\x89PNG")
    (folder / "around").symlink_to(folder)  # a circle
    return folder


def digit_run(sources: list[Any], out: Path, **options: Any) -> Summary:
    """Run the embedded classifier into JSON lines, 5 pictures a part, unless `options` say otherwise."""
    settled: dict[str, Any] = {
        "task": "classify", "model": MODEL, "table_format": "jsonl", "rows_per_part": 5, "top": 2, "jobs": 2,
    }  # fmt: skip
    return run(sources, out, **{**settled, **options})


def compute_here(options: Any, parts: Sequence[Any], folder: Path, jobs: int, hear: Any) -> list[mm.PartReport]:
    """Compute parts in this process: for tests of what a table holds, whoever computes it."""
    runner = mm.PartRunner(options)
    return [runner.run(part, folder) for part in parts]


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of JSON lines."""
    return [json.loads(line) for path in sorted(folder.glob("part-*.jsonl")) for line in path.read_text().splitlines()]


RUNNER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from bulk_runs import digit_run
digit_run([Path({pictures!r})], Path({out!r}), shard={shard!r})
"""


def start_run(pictures: Path, out: Path, shard: tuple[int, int] = (0, 1)) -> subprocess.Popen[bytes]:
    """Begin `digit_run` in a process of its own."""
    code = RUNNER.format(tests=str(Path(__file__).parent), pictures=str(pictures), out=str(out), shard=shard)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
