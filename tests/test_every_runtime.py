"""`check --against all`: which of several runtimes is right, with stand-ins that compute what the definitions say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted import draw_pixels, make_network
from planted_exports import FAULTS, plant

import minimobile as mm
from minimobile.comparison import every_runtime, peers
from minimobile.comparison.bench import Timing
from minimobile.errors import InputError, UnavailableError
from tests import conftest

Run = Callable[[peers.Peer, np.ndarray], Any]


def faulty(peer: peers.Peer, pixels: np.ndarray) -> Any:
    """Compute the network with a mean that was forgotten in its batch norms."""
    return plant(peer.model, FAULTS["mean forgotten"])(pixels, peers.compared_layers(peer.model.graph))


def blind(peer: peers.Peer, pixels: np.ndarray) -> Any:
    raise UnavailableError("openvino: expected a version of 2024 or newer, got 2022")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes the named runtimes, and no others, installed ones that compute as the given functions do."""

    def replace(**runs: Run) -> None:
        monkeypatch.setattr(every_runtime, "find_spec", lambda package: package in runs)
        for name, run in runs.items():
            monkeypatch.setitem(peers.PEERS, name, run)

    def time(graph: Any, weights: Any, shape: Any, against: list[str], *_: Any) -> list[Timing]:
        return [Timing("minimobile", 1, 2.0, 3.0, 0.0), *(Timing(name, 1, 4.0, 5.0, 0.0) for name in against)]

    monkeypatch.setattr(every_runtime, "compare", time)
    return replace


def check_v1() -> mm.RuntimesReport:
    return mm.check_all(make_network("v1"), pixel_values=draw_pixels())


def test_runtimes_that_compute_the_same_agree(install: Callable[..., None]) -> None:
    install(onnxruntime=peers.PEERS["reference"], openvino=peers.PEERS["reference"])
    report = check_v1()
    assert report.agrees is True
    assert [row.name for row in report.runtimes] == ["minimobile", "onnxruntime", "openvino"]
    assert [row.milliseconds for row in report.runtimes] == [2.0, 4.0, 4.0]
    assert all(row.error is not None and row.error < 1e-5 for row in report.runtimes)
    assert not any(row.runs_file for row in report.runtimes[1:])
    assert report.sentences()[0].startswith("all 3 agree: rounding explains every difference; nearest to float64 is ")


def test_the_one_that_differs_is_named_with_its_fault(install: Callable[..., None]) -> None:
    install(onnxruntime=peers.PEERS["reference"], openvino=faulty)
    report = check_v1()
    assert report.agrees is False
    assert report.first_difference == "openvino"
    assert str(report.diagnosis).startswith(FAULTS["mean forgotten"].words)
    ours, onnxruntime, openvino = report.runtimes
    assert (ours.agrees, onnxruntime.agrees, openvino.agrees) == (True, True, False)
    assert openvino.first_difference in peers.compared_layers(make_network("v1").graph)
    assert openvino.error is not None and onnxruntime.error is not None and openvino.error > 100 * onnxruntime.error
    first, second = report.sentences()
    assert first == f"openvino differs first at {openvino.first_difference}: {openvino.diagnosis}"
    assert second == "minimobile, onnxruntime agree with the float64 run: the difference lies with openvino"


def test_one_that_cannot_run_leaves_a_doubt_and_its_reason(install: Callable[..., None]) -> None:
    install(onnxruntime=peers.PEERS["reference"], openvino=blind)
    report = check_v1()
    assert report.agrees is None
    assert report.doubt == "openvino could not be judged"
    assert report.runtimes[2].note == "openvino: expected a version of 2024 or newer, got 2022"
    assert "openvino: expected a version of 2024" in str(report.table().to_html())


def test_where_none_can_run_there_is_no_verdict(install: Callable[..., None]) -> None:
    install(openvino=blind)
    report = check_v1()
    assert report.agrees is None
    assert report.sentences() == ("cannot tell: no other runtime could run the network",)


def test_one_page_has_every_runtime_with_its_first_difference(
    install: Callable[..., None], run: conftest.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, as a bug report would have it: a table of each, and the verdict in words."""
    install(onnxruntime=peers.PEERS["reference"], openvino=faulty)
    monkeypatch.setattr("minimobile.execution.engine.is_compiled", lambda: True)  # and no note on stderr
    make_network("v1").save_pretrained(tmp_path / "v1")
    processor = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    (tmp_path / "v1" / "preprocessor_config.json").write_text(json.dumps(processor))
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 44, 3), np.uint8)).save(tmp_path / "photo.png")
    words = ("check", tmp_path / "v1", tmp_path / "photo.png", "--against", "all", "--html", tmp_path / "page.html")
    code, out, err = run(*words, "--format", "json")
    assert (code, err) == (1, "")
    document, page = json.loads(out), (tmp_path / "page.html").read_text()
    assert set(document["reports"]) == {"onnxruntime", "openvino"}
    report = document["reports"]["openvino"]
    assert report["first_difference"] == document["runtimes"][2]["first_difference"] and report["worst"]["theirs"]
    head, onnxruntime, openvino = re.split("<h2>Against ", page)
    assert f"openvino differs first at {report['first_difference']}: " in head and "<td" in head
    assert onnxruntime.startswith("onnxruntime</h2>") and "agrees: rounding explains every difference" in onnxruntime
    assert f"differs: first at {report['first_difference']}, in " in openvino
    assert openvino.count(f">{report['first_difference']}</td>") == 1 and "theirs: what their inputs" in openvino
    assert "<h2>Versions</h2>" in openvino and "numpy" in openvino
    assert f"<p>model: {tmp_path / 'v1'}</p><p>picture: {tmp_path / 'photo.png'}</p>" in head
    code, out, err = run(*words)
    assert (code, out) == (1, "") and "expected the name of a new file, but it exists; --force" in err
    code, out, err = run(*words[:-1], tmp_path / "page.pdf")
    assert (code, out) == (2, "") and "expected a file name ending in .html or .htm" in err
    code, out, err = run(*words[:-1], tmp_path / "nowhere" / "page.html")
    assert (code, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.crosscheck
@pytest.mark.filterwarnings("ignore")  # of the frameworks
def test_every_runtime_has_a_time() -> None:
    for name in ("tensorflow", "torch", "ai_edge_litert", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason=f"needs {name}")
    import torch

    torch.set_num_threads(1)
    report = check_v1()
    assert report.agrees is True and len(report.runtimes) == 6
    assert all(row.milliseconds is not None and row.milliseconds > 0 for row in report.runtimes), report.runtimes
    assert torch.get_num_threads() == 1, "the process's own number is left as it was"


def test_without_a_runtime_the_way_out_is_said(install: Callable[..., None]) -> None:
    install()
    with pytest.raises(UnavailableError, match=r"one of transformers, .* none is installed; python -m pip install"):
        check_v1()


def test_integers_are_refused(install: Callable[..., None]) -> None:
    install(onnxruntime=peers.PEERS["reference"])
    with pytest.raises(InputError, match="got one of integers"):
        mm.check_all(mm.quantize(make_network("v1", image_size=32), draw_pixels()), pixel_values=draw_pixels())


def test_keras_is_not_given_the_native_file(tmp_path: Path) -> None:
    model = make_network("v1")
    model.save(tmp_path / "model.h5")
    endpoints = {"Conv2d_0": "a tensor of the file that the integers came from"}
    assert not peers.runs_file("tensorflow", peers.Peer(model, tmp_path / "model.h5", endpoints))
    (tmp_path / "keras.h5").write_bytes(b"no file of HDF5")
    assert peers.runs_file("tensorflow", peers.Peer(model, tmp_path / "keras.h5", endpoints))
