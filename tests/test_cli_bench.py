"""`minimobile bench` and `minimobile warmup`: rows and steps that are named, not how long they take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.comparison.bench import Timing
from minimobile.networks.build_graph import build_graph
from tests.conftest import Run


def test_warmup_says_where_the_kernels_are(run: Run) -> None:
    code, out, _ = run("warmup")
    assert code == 0
    assert re.fullmatch(r"The kernels (were ready|are compiled), after \d+\.\d s, in .*minimobile\n", out)


def test_warmup_does_not_claim_to_have_kept_what_it_could_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minimobile.quantized.engine.is_kept", lambda: False)
    assert run("warmup").out.endswith("s, no process after this one has them\n")


def test_bench_gives_a_row_per_number_of_threads(run: Run, classifier: Path) -> None:
    code, out, _ = run("bench", classifier, "--size", 32, "--seconds", 0, "--format", "json")
    timings = json.loads(out)["timings"]
    assert code == 0
    assert [(row["name"], row["num_threads"]) for row in timings] == [("minimobile", 1), ("minimobile", 2)]
    assert all(0 < row["minimum"] <= row["median"] for row in timings)


def test_bench_of_calls_apart_compares_medians(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def compare(*arguments: object) -> list[Timing]:
        given.append(arguments[-1])
        return [Timing("minimobile", 1, 1.0, 3.0, 0.0, 20.0), Timing("litert", 1, 2.0, 4.0, 0.0, 20.0)]

    monkeypatch.setattr("minimobile.comparison.bench.compare", compare)
    code, out, _ = run("bench", "demo:digits", "--against", "litert", "--threads", 1, "--pause", 20)
    assert (code, given) == (0, [20.0])
    assert out.splitlines()[-1].split()[-1] == "0.75"


def test_bench_takes_the_model_s_own_size(run: Run) -> None:
    code, out, _ = run("bench", "demo:digits", "--seconds", 0, "--threads", 1)
    assert code == 0
    assert out.startswith("MobileNetV1ForImageClassification at 64x64, batch 1\n")


def test_bench_times_a_quantised_file_as_it_is(run: Run, tmp_path: Path) -> None:
    config = mm.MobileNetV1Config(depth_multiplier=0.1, min_depth=1, num_labels=3)
    graph = build_graph(config, "MobileNetV1ForImageClassification")
    path = tmp_path / "model.tflite"
    path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), dtype="int8").write())
    code, out, _ = run("bench", path, "--threads", "1", "--seconds", 0, "--format", "json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["timings"]] == ["minimobile", "minimobile float32"]
    for words, found in ((("--size", 64), "a quantised file"), (("--against", "torch"), "got 'torch'")):
        code, out, err = run("bench", path, *words, "--seconds", 0)
        assert (code, out) == (1, "")
        assert found in err


@pytest.mark.parametrize("words", [("--threads", "1,0"), ("--threads", ""), ("--against", "caffe")])
def test_what_no_number_of_threads_and_no_runtime_is_wrong_usage(run: Run, words: tuple[str, str]) -> None:
    code, out, err = run("bench", "demo:digits", *words)
    assert (code, out) == (2, "") and f"{words[0]} {words[1].split(',')[0]}" in err and "expected" in err


def test_bench_by_layers_names_every_step(run: Run, classifier: Path) -> None:
    code, out, _ = run("bench", classifier, "--size", 32, "--layers", "--format", "json")
    steps = json.loads(out)["steps"]
    assert code == 0
    assert steps[0]["name"] == "conv_stem + layer.0 + layer.1"
    assert steps[-1]["name"] == "classifier"
    assert sum(step["kernel"].count("depthwise_conv2d") for step in steps) == 13
