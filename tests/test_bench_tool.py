"""`tools/bench.py`: every option measures what it names, and prints it for people or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from minimobile.comparison.bench import Timing
from minimobile.errors import InputError
from tools import bench

STEP = {"name": "conv_stem", "kernel": "conv2d", "output": (1, 2, 2, 8), "microseconds": 12.5, "gflops": 3.0,
        "share": 0.5, "speedup": 1.5, "parts": [4, 2]}  # fmt: skip
CASE = "V1 0.25 128"


def _timings(*_: Any) -> list[Timing]:
    return [Timing("minimobile", 1, 1.0, 1.5, 0.0), Timing("litert", 1, 2.0, 2.5, 1e-6)]


@pytest.mark.parametrize(
    ("words", "what", "measured", "line"),
    [
        (["--cases", CASE, "--threads", "1"], "compare", _timings, f"| {CASE} | 1 | 1.00 | 2.00 | 0.50 |"),
        (["--quantized", "a/b.tflite", "--threads", "2"], "compare_quantized", _timings,
         "| b | 2 | 1.000 | 2.000 |  |  |  | 0.50 | 0.50 |"),
        (["--layers", "--cases", CASE], "time_steps", lambda *_, **__: [STEP], f"{CASE}: 0.01 ms"),
        (["--memory", "--cases", CASE], "measure_memory", lambda *_: {"ours": 10.4}, f"{CASE}: ours 10 MiB"),
        (["--start"], "time_starts", lambda _: {"first": [2.0, 4.0]}, "| first | 2.00 | 3.00 |"),
        (["--detections"], "time_all_detections", lambda *_: {"random": {"fast": 0.5}}, "random: fast 0.500 ms"),
    ],
)  # fmt: skip
def test_an_option_chooses_what_is_measured(
    words: list[str], what: str, measured: Any, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(bench, what, measured)
    monkeypatch.setattr(bench, "weighted", lambda case: (case,))
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    assert bench.main() == 0
    assert line in capsys.readouterr().out.splitlines()
    monkeypatch.setattr(sys, "argv", ["bench", *words, "--json"])
    assert bench.main() == 0
    assert json.loads(capsys.readouterr().out)


def test_photographs_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--photograph", "model"])
    with pytest.raises(InputError, match="--pictures FILE"):
        bench.main()
