"""A file of integers beside another runtime: its layers leave a doubt, which its answers, as it is, take away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import draw_pixels, make_network

import minimobile as mm
from minimobile.comparison import peers
from minimobile.comparison.answers import Answers
from minimobile.comparison.peers import Peer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("integers") / "v1.onnx"
    mm.quantize(make_network("v1", image_size=32), draw_pixels(32)).save(place)
    return place


def pretend(monkeypatch: pytest.MonkeyPatch, alone: float) -> None:
    """Have ONNX Runtime be us, part of a step off where it shows layers, `alone` steps where only the last."""

    def run(peer: Peer, pixels: Any) -> Mapping[str, Any]:
        network: Any = peer.model.runner.network  # type: ignore[attr-defined]
        found = peer.model.features(pixels, list(peer.endpoints))
        steps = {layer: float(network.tensors[tensor].scale) for layer, tensor in peer.endpoints.items()}
        count = alone if len(found) == 1 else 0.4  # and half a step for rounding
        for layer, values in found.items():
            values.ravel()[np.argmin(values)] += np.float32(count * steps[str(layer)])
        return {str(layer): values for layer, values in found.items()}

    monkeypatch.setitem(peers.PEERS, "onnxruntime", run)  # type: ignore[arg-type]


def test_answers_that_are_ours_bit_for_bit_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, alone=0)
    report = mm.check(path, pixel_values=draw_pixels(32), against="onnxruntime")
    assert any(layer.agrees is None for layer in report.layers)
    assert report.agrees and report.answers == Answers("classifier", 11, 0, 0.0)
    assert report.sentences()[0] == (
        "agrees: as it is, the file gives our 11 values of classifier, bit for bit; where its layers are shown, "
        "rounding explains every difference in them"
    )
    assert report.to_dict()["answers"] == {"layer": "classifier", "values": 11, "differing": 0, "most_steps": 0.0}


def test_answers_that_are_off_are_told_with_the_doubt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, alone=2)
    report = mm.check(path, pixel_values=draw_pixels(32), against="onnxruntime")
    assert report.agrees is None and report.answers == Answers("classifier", 11, 1, 2.0)
    assert report.sentences()[0].startswith("cannot tell: at ")
    assert report.sentences()[0].endswith("; as it is, the file gives 1 of 11 values of classifier up to 2 steps off")


def write_as_int8(source: Path, path: Path) -> None:
    """Write a file whose maps are of uint8 with maps of int8, which stand for the same numbers."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(source)
    for each in model.graph.initializer:
        if each.data_type == onnx.TensorProto.UINT8:
            zeros = onnx.numpy_helper.to_array(each).astype(np.int16) - 128
            each.CopyFrom(onnx.numpy_helper.from_array(zeros.astype(np.int8), each.name))
    onnx.save(model, path)


@pytest.mark.crosscheck
@pytest.mark.filterwarnings("ignore:.*their weights are rounded more coarsely")
def test_the_answers_of_a_published_network(test_data: Path, tmp_path: Path) -> None:
    """ONNX Runtime has our bytes, but of maps of int8 not where it has to show its layers."""
    pytest.importorskip("onnxruntime")
    pictures = sorted((test_data / "images").glob("*.jpg"))
    mm.quantize(test_data / "models" / "huggingface" / "mobilenet_v1_0.25_128", pictures).save(tmp_path / "v1.onnx")
    report = mm.check(tmp_path / "v1.onnx", pictures[0], against="onnxruntime")
    assert report.agrees and all(layer.agrees for layer in report.layers) and report.answers is None
    write_as_int8(tmp_path / "v1.onnx", tmp_path / "int8.onnx")
    report = mm.check(tmp_path / "int8.onnx", pictures[0], against="onnxruntime")
    assert sum(layer.agrees is None for layer in report.layers) > 9
    assert report.agrees and report.answers is not None and report.answers.values == 1001


@pytest.mark.crosscheck
def test_all_layers_of_a_segmentation_are_shown(tmp_path: Path) -> None:
    """Its logits are two changes of scale in a row."""
    pytest.importorskip("onnxruntime")
    model, pixels = make_network("deeplab", image_size=33), draw_pixels(33)
    mm.quantize(model, pixels).save(tmp_path / "deeplab.onnx")
    report = mm.check(tmp_path / "deeplab.onnx", pixel_values=pixels, against="onnxruntime")
    assert report.agrees is not False and report.layers[-1].name == "segmentation_head.classifier", report
