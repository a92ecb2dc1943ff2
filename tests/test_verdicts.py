"""That `check` accuses no sound export and clears no faulty one: every layer in sight, or the logits alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import draw_pixels, make_network
from planted_exports import FAULTS, plant

import minimobile as mm
from minimobile.comparison.crosscheck import check
from minimobile.comparison.float32_bounds import largest_excess
from minimobile.comparison.layer_comparison import Report
from minimobile.comparison.peers import compared_layers
from minimobile.comparison.rivals import prepare
from minimobile.comparison.suspect import isolate
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import INPUT


def judge(model: MobileNetModel, pixels: np.ndarray, name: str, *, is_whole: bool) -> Report:
    """Check a model against itself with a fault planted, seen at all its layers or at its logits."""
    shown = compared_layers(model.graph) if is_whole else list(model.graph.outputs)
    run = plant(model, FAULTS[name])
    return check(model, against=lambda x: run(x, shown), pixel_values=pixels)


def test_zeros_are_not_logits() -> None:
    zeros = {"classifier": np.zeros((1, 10), np.float32)}
    picture = Path(mm.__file__).parent / "demo" / "digit_7.png"
    assert check("demo:digits", picture, against=lambda pixels: zeros).agrees is False


@pytest.mark.parametrize(
    "name", ["epsilon", "BGR", "scale forgotten", "layers exchanged", "all means 1 % off", "float16 weights"]
)
def test_a_faulty_export_is_not_cleared_by_its_logits(name: str) -> None:
    assert judge(make_network("v1"), draw_pixels(), name, is_whole=False).agrees is False


@pytest.mark.parametrize("name", ["batch norm left out", "mean forgotten", "scale forgotten", "bias zeroed",
                                  "layers exchanged", "float16 weights", "shift forgotten"])  # fmt: skip
def test_a_fault_is_called_by_its_name(name: str) -> None:
    report = judge(make_network("v2"), draw_pixels(), name, is_whole=True)
    assert report.agrees is False
    assert str(report.diagnosis).startswith(FAULTS[name].words), report.diagnosis


# A network and the size of its pictures: smaller than its own, for the sake of time.
REAL = {
    "v1": ("huggingface/mobilenet_v1_0.25_128", 96),
    "v2": ("huggingface/mobilenet_v2_1.0_224", 64),
    "deeplab": ("huggingface/deeplabv3_mobilenet_v2_0.5_257", 64),
}


def open_real(test_data: Path, kind: str, picture: str = "cat.bmp") -> tuple[MobileNetModel, Any]:
    """Return a published network and the pixels of a photograph."""
    name, size = REAL[kind]
    model = mm.load(test_data / "models" / name)
    sizes = {"size": {"shortest_edge": size + 8}, "crop_size": {"height": size, "width": size}}
    return model, model.processor(test_data / "images" / picture, return_tensors="np", **sizes)["pixel_values"]


@pytest.mark.crosscheck
@pytest.mark.parametrize("kind", REAL)
def test_no_fault_of_a_published_network_is_cleared(kind: str, test_data: Path) -> None:
    """Every layer in sight: 24 faults, and each that has a name is called by it."""
    model, pixels = open_real(test_data, kind)
    cleared, unnamed = [], []
    for name, fault in FAULTS.items():
        report = judge(model, pixels, name, is_whole=True)
        print(f"{kind}, all layers: {name}: {report.agrees}, {report.first_difference}, {report.diagnosis}")
        cleared += [name] * (report.agrees is not False)
        unnamed += [(name, report.diagnosis)] * (not str(report.diagnosis).startswith(fault.words or ""))
    assert not cleared and not unnamed
    assert len(FAULTS) == 24


@pytest.mark.crosscheck
@pytest.mark.parametrize("kind", REAL)
def test_no_fault_of_a_published_network_is_cleared_by_its_logits(kind: str, test_data: Path) -> None:
    """As `check` judges them, of which the limits are computed once for all faults, and nothing is diagnosed."""
    model, pixels = open_real(test_data, kind)
    (output,) = model.graph.outputs
    suspect, cleared = None, []
    for name, fault in FAULTS.items():
        logits = plant(model, fault)(pixels, [output])[output]
        found = logits.transpose(0, 2, 3, 1) if logits.ndim == 4 else logits[:, None, None]
        if suspect is None:
            known = {INPUT: pixels.transpose(0, 2, 3, 1), output: found}
            suspect = isolate(model.graph, model.state_dict(), output, known)
            expected = suspect.estimate()
            assert suspect.would_see_narrower_weights(expected)
        excess = largest_excess(expected, found)
        print(f"{kind}, logits: {name}: {excess:.4g} times what float32 explains")
        cleared += [name] * (excess <= 1)
    assert not cleared


SOUND = [("onnxruntime", 1), ("onnxruntime", 2), ("openvino", 1), ("openvino", 2), ("torch", 1), ("torch", 2),
         ("litert", 1), ("litert", 2)]  # fmt: skip


@pytest.mark.crosscheck
@pytest.mark.parametrize("kind", REAL)
def test_no_sound_run_of_a_published_network_is_accused_by_its_logits(kind: str, test_data: Path) -> None:
    """Eight engines and numbers of threads, two pictures, three networks: 48 runs, as `check` judges them."""
    model, _ = open_real(test_data, kind)
    weights, (output,) = model.state_dict(), model.graph.outputs
    accused, runs = [], {}
    for picture in ("cat.bmp", "parrot.jpg"):
        _, pixels = open_real(test_data, kind, picture)
        expected = None
        for name, threads in SOUND:
            pytest.importorskip({"litert": "ai_edge_litert"}.get(name, name), reason=f"needs {name}")
            if (name, threads) not in runs:
                runs[name, threads] = prepare(name, model.graph, weights, pixels.shape, threads)
            (logits,) = runs[name, threads](pixels)
            logits = logits.reshape(*logits.shape, *[1] * (4 - logits.ndim))  # of classifiers some give (N, classes)
            known = {INPUT: pixels.transpose(0, 2, 3, 1), output: logits.transpose(0, 2, 3, 1)}
            suspect = isolate(model.graph, weights, output, known)
            expected = suspect.estimate() if expected is None else expected
            excess = largest_excess(expected, suspect.found)
            print(f"{kind}, {picture}, {name} on {threads}: {excess:.3f} of what float32 explains")
            accused += [(picture, name, threads, excess)] * (excess > 1)
    assert not accused


@pytest.mark.crosscheck
@pytest.mark.parametrize("against", ["transformers", "tensorflow", "onnxruntime", "reference"])
@pytest.mark.parametrize("kind", REAL)
def test_no_sound_run_of_a_published_network_is_accused_at_any_layer(kind: str, against: str, test_data: Path) -> None:
    pytest.importorskip(
        {"transformers": "torch", "reference": "numpy"}.get(against, against), reason="is not installed"
    )
    model, pixels = open_real(test_data, kind)
    report = check(model, against=against, pixel_values=pixels)
    print(f"{kind}, {against}: {max(layer.excess for layer in report.layers):.3f} of what float32 explains, at most")
    assert report.agrees, (report.first_difference, report.diagnosis, report.doubt)
