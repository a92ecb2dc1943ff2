from __future__ import annotations

import json
from pathlib import Path

import pytest

import minimobile
from tests.conftest import Run


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a V2 1.0 with ImageNet's 1001 classes and random weights, as our native file."""
    path = tmp_path_factory.mktemp("inspect") / "v2.h5"
    config = minimobile.MobileNetV2Config(num_labels=1001)
    minimobile.MobileNetV2ForImageClassification(config).save(path, dtype="float16")
    return path


def test_totals_are_the_published_ones(run: Run, full_size: Path) -> None:
    """TF-slim, nets/mobilenet/README.md, V2 1.0: 300 and 99 million multiply-adds at 224 and 128."""
    code, out, err = run("inspect", full_size, "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["totals"] == {"parameters": 3_506_153, "multiply_adds": 300_775_552}
    assert {"name", "operation", "output_shape", "parameters", "multiply_adds"} <= set(document["layers"][0])
    assert document["layers"][0]["output_shape"] == [32, 112, 112]
    small = json.loads(run("inspect", full_size, "--size", 128, "--format", "json").out)
    assert small["totals"] == {"parameters": 3_506_153, "multiply_adds": 99_075_328}


def test_the_table_fits_80_columns_and_ends_with_the_totals(run: Run, full_size: Path) -> None:
    code, out, err = run("inspect", full_size)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "MobileNetV2ForImageClassification at 224x224 (outputs: C x H x W)"
    assert lines[1].split() == ["layer", "operation", "output", "parameters", "multiply-adds"]
    assert lines[-1].split() == ["total", "3,506,153", "300,775,552"]
    assert max(map(len, lines)) <= 80


def test_inspecting_compiles_nothing(run: Run, classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minimobile.engine.is_compiled", lambda: False)
    assert run("inspect", classifier).err == ""
