"""Speed in integers: rivals run the network of the file, and the tables of several machines say what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.comparison import bench
from minimobile.errors import InputError
from minimobile.networks.build_graph import build_graph
from tools import speed


@pytest.mark.crosscheck
def test_rivals_run_the_network_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = mm.MobileNetV1Config(depth_multiplier=0.25, num_labels=12)
    graph = build_graph(config, "MobileNetV1ForImageClassification")
    path = tmp_path / "model.tflite"
    path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), dtype="int8").write())
    timings = bench.compare_quantized(path, bench.QUANTIZED_RIVALS, 1, 0)
    names = ["minimobile", "minimobile float32", "litert", "onnxruntime", "openvino"]
    assert [timing.name for timing in timings] == names
    assert all(0 < timing.difference < bench.INTEGER_AGREEMENT for timing in timings[3:])
    monkeypatch.setattr(bench, "INTEGER_AGREEMENT", 0.0)
    with pytest.raises(InputError, match="expected the floats' output within 0"):
        bench.compare_quantized(path, ["openvino"], 1, 0)


def test_a_rival_that_gives_no_numbers_is_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mm.load("demo:digits")
    monkeypatch.setattr(bench, "prepare", lambda *_: lambda x: [np.full((1, 10), np.nan, np.float32)])
    with pytest.raises(InputError, match=r"torch: expected our output within 0\.001, got a difference of nan"):
        bench.compare(model.graph, model.state_dict(), (1, 3, 32, 32), ["torch"], 1, 0)


def test_tables_of_machines_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(case: str, threads: int, **milliseconds: float) -> dict[str, object]:
        return {"case": case, "threads": threads, "multiply_adds": 50_000_000, "milliseconds": milliseconds}

    floats = [row("V1", count, minimobile=2.0 / count, openvino=2.5, litert=4.0) for count in (1, 2)]
    integers = [row("V1, int8", 1, minimobile=1.0, litert=2.0, openvino=0.8)]
    first = {"name": "one", "gflops": 100.0, "floats": floats, "integers": integers}
    text = speed.tables(first)
    assert "| V1 | 1 | 2.00 |  | 2.50 | 4.00 |  | 0.80 | 50% | 1.00 x |" in text
    assert "| V1 | 2 | 1.00 |  | 2.50 | 4.00 |  | 0.40 | 50% | 2.00 x |" in text
    assert "| V1, int8 | 1 | 1.000 | 2.000 |  | 0.800 |  | 0.50 | 1.25 | 25% | 1.00 x |" in text
    assert "of the fastest, threads 1: 1.25; largest 1.25" in text
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, machine in zip(paths, (first, {**first, "name": "two", "integers": []}), strict=True):
        path.write_text(json.dumps(machine))
    monkeypatch.setattr(sys, "argv", ["speed", "--beside", *map(str, paths)])
    assert speed.main() == 0
    printed = capsys.readouterr().out
    assert "| network | threads | one | two |" in printed
    assert "| V1 | 2 | 1 / 2.5 = 0.40 | 1 / 2.5 = 0.40 |" in printed
    assert "| V1, int8 | 1 | 1 / 0.8 = 1.25 |  |" in printed


def test_one_command_makes_the_tables_of_the_other_tools_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        called.append(command[2:])
        return subprocess.CompletedProcess(command, int("--start" in command))

    times = {"minimobile": 2.0, "openvino": 2.5, "litert": 4.0}
    row = {"case": "V1", "threads": 1, "multiply_adds": 50_000_000, "milliseconds": times}
    monkeypatch.setattr(speed, "measure_peak", lambda: 100.0)
    monkeypatch.setattr(speed, "time_floats", lambda *_: [row])
    monkeypatch.setattr(speed, "time_integers", lambda *_: [row])
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["speed", "a.tflite", "--photograph", "model", "--pictures", "photographs"])
    assert speed.main() == 1  # as the tool that failed
    assert called[0] == ["tools.scaling", "a.tflite"]
    assert called[-1][:5] == ["tools.bench", "--photograph", "model", "--pictures", "photographs"]
    assert all(find_spec(module) for module, *_ in called)
    assert "\nFrom the photograph\n" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["speed", "--photograph", "model"])
    with pytest.raises(SystemExit, match="2"):
        speed.main()
