"""Seconds of whole processes: the first ones, which compile the kernels, and later ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tools.bench_cases import CASES

PROCESSOR = {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 256}}
CLASSIFY = "import sys, minimobile; minimobile.classify(sys.argv[1], sys.argv[2])"


def time_starts(runs: int) -> dict[str, list[float]]:
    """Return the seconds of whole processes: those that find no machine code, twice, and later ones, `runs` times.

    What is classified is a photograph of 375 x 500 by V2 1.0 224, a directory as transformers writes it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, photo, overlay = folder / "model", folder / "photo.jpg", folder / "overlay.png"
        CASES["V2 1.0 224"][0].save_pretrained(model)
        (model / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((500, 375)).save(photo)
        python, command = [sys.executable, "-c"], [sys.executable, "-m", "minimobile"]
        classify = [*python, CLASSIFY, str(photo), str(model)]
        later = {
            "classify in Python": classify,
            "minimobile classify": [*command, "classify", str(photo), "--model", str(model)],
            "minimobile demo": [*command, "demo", "--out", str(overlay), "--force"],
            "minimobile --help": [*command, "--help"],
            "import numpy": [*python, "import numpy"],
        }
        seconds: dict[str, list[float]] = {}
        for title in ("classify in Python", "minimobile demo"):
            empty = [folder / f"{title} {run}" for run in range(2)]
            seconds[f"first run ever: {title}"] = [_time_process(later[title], kernels) for kernels in empty]
        for words in later.values():
            _time_process(words, empty[-1])  # Python keeps its bytecode
        for _ in range(runs):
            for title, words in later.items():
                seconds.setdefault(title, []).append(_time_process(words, empty[-1]))
    return seconds


def _time_process(command: list[str], kernels: Path) -> float:
    """Return the seconds of a process that keeps machine code in `kernels`, and bytecode as Python does by default."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kernels)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start
