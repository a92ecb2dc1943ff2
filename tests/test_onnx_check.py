"""`check` on ONNX files, live: every tensor of the file in ONNX Runtime and OpenVINO, sound ones and 24 faulty ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import run_every_tensor
from planted import draw_pixels, make_network, with_changed, with_weights
from planted_exports import FAULTS

import minimobile as mm
from minimobile.comparison.peers import compared_layers
from minimobile.formats.onnx import expose
from minimobile.models.classes import MobileNetModel

pytestmark = pytest.mark.crosscheck


@pytest.mark.parametrize("against", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["v1", "v2", "deeplab"])
def test_every_layer_of_a_file_is_compared(kind: str, against: str, tmp_path: Path) -> None:
    model = make_network(kind, image_size=33)
    model.save(tmp_path / "model.onnx")
    report = mm.check(tmp_path / "model.onnx", against=against, pixel_values=draw_pixels(33))
    assert report.agrees, report
    assert [layer.name for layer in report.layers] == compared_layers(model.graph)
    assert report.environment[against] and report.environment["processor"]


def plant_in_file(path: Path, model: MobileNetModel, name: str) -> None:
    fault = FAULTS[name]
    with_weights(model, fault.weights(model.state_dict()), **fault.fields).save(path)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_file_is_found_and_named(name: str, tmp_path: Path) -> None:
    """The sound network beside the faulty file in ONNX Runtime; what is wrong with pixels is fed to it."""
    model, pixels, fault = make_network("v2", image_size=32), draw_pixels(), FAULTS[name]
    if name == "no activation":  # the writer says it already: no MobileNet is without
        with pytest.raises(mm.FormatError, match="expected an activation, got hidden_act 'linear'"):
            plant_in_file(tmp_path / "faulty.onnx", model, name)
        return
    plant_in_file(tmp_path / "faulty.onnx", model, name)
    if not fault.weights(model.state_dict()) and not fault.fields:

        def against(given: Any) -> dict[str, Any]:
            fed = np.ascontiguousarray(fault.pixels(given), np.float32)
            found = run_every_tensor(tmp_path / "faulty.onnx", fed)
            return {layer: found[layer] for layer in compared_layers(model.graph) if layer in found}

        report = mm.check(model, pixel_values=pixels, against=against)
    else:
        report = mm.check(model, pixel_values=pixels, against="onnxruntime", other=tmp_path / "faulty.onnx")
    print(f"{name}: {report.first_difference}: {report.diagnosis}")
    assert report.agrees is False and report.worst is not None
    assert str(report.diagnosis).startswith((fault.words or "weights: ", "weights: "))


def test_a_page_tells_all_that_a_bug_report_needs(tmp_path: Path) -> None:
    model = make_network("v1", image_size=32)
    plant_in_file(tmp_path / "faulty.onnx", model, "one weight off by 1 %")
    report = mm.check(model, pixel_values=draw_pixels(), against="onnxruntime", other=tmp_path / "faulty.onnx")
    page = report.to_page()
    for words in (
        "differs: first at layer.",
        "1.01 times ours",
        "onnxruntime",
        "numpy",
        "theirs: what their weights make",
    ):
        assert words in page, words
    document = json.loads(json.dumps(report.to_dict()))
    assert document["worst"]["ours"]["terms"] and document["worst"]["theirs"]["terms"]


def test_a_file_that_scales_its_picture_is_fed_behind_that(tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    make_network("v1", image_size=32).save(tmp_path / "model.onnx")
    plain = onnx.load(tmp_path / "model.onnx")
    first = next(node for node in plain.graph.node if node.op_type == "Conv")
    first.input[0] = "scaled"
    scale, offset = (numpy_helper.from_array(np.float32(x), name) for x, name in ((1 / 127.5, "s"), (-1, "o")))
    plain.graph.initializer.extend([scale, offset])
    plain.graph.node.insert(0, helper.make_node("Add", ["product", "o"], ["scaled"], name="add"))
    plain.graph.node.insert(0, helper.make_node("Mul", ["pixel_values", "s"], ["product"], name="mul"))
    onnx.save(plain, tmp_path / "scaled.onnx")
    found = expose.expose(tmp_path / "scaled.onnx", ["layer.3", "logits"])
    assert found.entry == "scaled"
    for against in ("onnxruntime", "openvino"):
        report = mm.check(tmp_path / "scaled.onnx", against=against, pixel_values=draw_pixels())
        assert report.agrees, report


def test_a_session_is_compared_by_its_outputs(tmp_path: Path) -> None:
    import onnxruntime

    model = make_network("v1", image_size=32)
    model.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    report = mm.check(model, pixel_values=draw_pixels(), against=session)
    assert report.agrees and [layer.name for layer in report.layers] == ["classifier"]
    with pytest.raises(mm.InputError, match=r"the session given: expected it to run on pixel values \(1, 3, 40, 40\)"):
        mm.check(model, pixel_values=draw_pixels(40), against=session)


@pytest.mark.parametrize("against", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("kind", "layer"), [("v1", "layer.3"), ("v2", "layer.3.reduce_1x1")])
def test_another_weight_is_found_among_integers(kind: str, layer: str, against: str, tmp_path: Path) -> None:
    """Both round a sum to the next step here and there, which is no difference."""
    model, pixels = make_network(kind, image_size=32), draw_pixels(32)
    integers = mm.quantize(model, pixels)
    integers.save(tmp_path / "sound.onnx")
    report = mm.check(tmp_path / "sound.onnx", against=against, pixel_values=pixels)
    assert report.agrees is not False and report.first_difference is None, report
    other = with_changed(model, f"{layer}.convolution.weight", lambda weight: weight[::-1])
    mm.quantize(other, pixels).save(tmp_path / "faulty.onnx")
    report = mm.check(integers, against=against, pixel_values=pixels, other=tmp_path / "faulty.onnx")
    assert report.agrees is False and report.first_difference == layer, report
