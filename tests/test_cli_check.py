"""`minimobile check`: its table, its JSON and its exit codes, with planted faults; nothing here needs a framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted import make_network, with_changed, with_weights
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.comparison.peers import Observed
from minimobile.comparison.quantized_steps import compare_with_dequantized
from minimobile.comparison.report import LayerComparison, Report
from minimobile.networks.build_graph import build_graph
from tests.conftest import Run

PROCESSOR = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photo.png, the model v1, and copies of it with one fault each."""
    folder = tmp_path_factory.mktemp("check")
    colours = np.random.default_rng(3).integers(0, 256, (50, 44, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "photo.png")
    model = make_network("v1")
    others = {
        "v1": model,
        "variance": with_changed(model, "layer.9.normalization.running_var", lambda variance: variance * 1.3),
        "padding": with_weights(model, {}, tf_padding=False),
        "deeplab": make_network("deeplab"),
    }
    for name, other in others.items():
        other.save_pretrained(folder / name)
        values = {"image_processor_type": "MobileNetV1ImageProcessor", **PROCESSOR}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def quantized(folder: Path) -> Path:
    """Return a quantised V2 DeepLab of random weights."""
    config = mm.MobileNetV2Config(depth_multiplier=0.1, output_stride=8, num_labels=3)
    graph = build_graph(config, "MobileNetV2ForSemanticSegmentation")
    path = folder / "quantized.tflite"
    path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True)).write())
    return path


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no test see the note on stderr that the first run on a machine has to compile."""
    monkeypatch.setattr("minimobile.execution.engine.is_compiled", lambda: True)


def test_a_variance_a_third_too_large_is_named_with_its_layer(run: Run, folder: Path) -> None:
    words = ("check", folder / "v1", folder / "photo.png", "--against", "reference", "--other", folder / "variance")
    code, out, err = run(*words)
    assert (code, err) == (1, "")
    assert out.splitlines()[-3] == "differs: first at layer.9, in 1 of 29 layers (*)"
    assert out.splitlines()[-2].startswith("farthest off: layer.9 at row ")
    words = "weights: mobilenet_v1.layer.9.normalization.running_var: 1.3 times ours, within "
    assert out.splitlines()[-1].startswith(words) and " of each value: at [0] it has " in out.splitlines()[-1]
    (marked,) = [line for line in out.splitlines()[3:-3] if "*" in line]
    assert marked.split()[:2] == ["layer.9", "25x4x4"]


def test_json_says_the_same(run: Run, folder: Path) -> None:
    words = ("check", folder / "v1", folder / "photo.png", "--against", "reference", "--format", "json")
    code, out, err = run(*words, "--other", folder / "padding")
    assert (code, err) == (1, "")
    document = json.loads(out)
    assert document["agrees"] is False
    assert document["first_difference"] == "conv_stem"
    assert document["diagnosis"] == "padding: symmetric, as PyTorch's; ours is SAME"
    assert len(document["layers"]) == 29
    first = document["layers"][0]
    assert first["name"] == "conv_stem" and first["shape"] == [1, 8, 16, 16]
    assert first["excess"] > 1 > first["our_error"] and first["cosine"] < 1
    code, out, _ = run(*words)
    assert code == 0
    assert {key: json.loads(out)[key] for key in ("agrees", "first_difference", "diagnosis")} == {
        "agrees": True, "first_difference": None, "diagnosis": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["v1", "deeplab"])
def test_the_table_fits_80_columns(run: Run, folder: Path, name: str) -> None:
    code, out, err = run("check", folder / name, folder / "photo.png", "--against", "reference")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines.pop(0) == "against reference"
    if name == "deeplab":
        assert lines.pop(0) == "(head. is segmentation_head.)"
        assert "head.conv_projection" in [line.split()[0] for line in lines], "no name is folded"
    assert lines[0].split() == ["layer", "shape", "max", "rms", "ours", "theirs", "ulps", "1-cos", "bound"]
    assert lines[-1].startswith("agrees: rounding explains every difference in ")
    assert max(map(len, lines)) <= 80
    assert {len(line.split()) for line in lines[2:-1]} == {9}


def test_the_widest_figures_fit_80_columns(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (1, 16, 257, 257)
    layer = LayerComparison(
        "segmentation_head.conv_projection", shape, shape, agrees=False, excess=28.1, max_difference=0.0281,
        rms_difference=0.0281, our_error=2.8e-5, their_error=2.8e-5, median_ulps=123456.5, cosine=0.9719,
    )  # fmt: skip
    found = Report("tensorflow", (layer,), first_difference=layer.name, diagnosis=None)
    monkeypatch.setattr("minimobile.comparison.crosscheck.check", lambda *words: found)
    row = run("check", folder / "v1", folder / "photo.png").out.splitlines()[4]
    assert len(row) <= 80
    figures = "0.03 0.03 2.8e-5 2.8e-5 1e5 0.03 *28"
    assert row.split() == ["head.conv_projection", "16x257x257", *figures.split()]


def test_what_differs_before_the_network_is_said(run: Run, folder: Path) -> None:
    """On the same pixels the networks agree; with their own processors they would not."""
    other = folder / "brighter"
    make_network("v1").save_pretrained(other)
    values = {"image_processor_type": "MobileNetV1ImageProcessor", **PROCESSOR, "image_std": [0.25] * 3, "resample": 3}
    (other / "preprocessor_config.json").write_text(json.dumps(values))
    words = ("check", folder / "v1", folder / "photo.png", "--against", "reference", "--other", other)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        "the image processors differ, and both sides got our pixels: resample 3 (ours: 2); "
        "image_std (0.25, 0.25, 0.25) (ours: (0.5, 0.5, 0.5))"
    )
    document = json.loads(run(*words, "--format", "json").out)
    assert document["agrees"] is True and "resample 3" in document["processors"]
    assert json.loads(run(*words[:-2], "--format", "json").out)["processors"] is None


def test_what_cannot_be_told_has_an_exit_code_of_its_own(run: Run, folder: Path, monkeypatch) -> None:
    model = make_network("v1")

    def show_less(name: str, peer: Any, pixels: Any) -> dict[str, Observed]:
        return {"layer.3": Observed(model.features(pixels, ["layer.3"])["layer.3"])}

    monkeypatch.setattr("minimobile.comparison.crosscheck.run_peer", show_less)
    code, out, err = run("check", folder / "v1", folder / "photo.png", "--against", "reference")
    assert (code, err) == (3, "")
    assert out.splitlines()[-1] == (
        "cannot tell: no values were shown of layer.4 and 23 others, nor of what depends on them"
    )


def test_arrays_of_the_other_side_are_named_where_they_do_not_show(run: Run, folder: Path) -> None:
    model = make_network("v1")
    idle = with_changed(model, "layer.9.normalization.weight", np.zeros_like)
    for name, other in {
        "idle": idle,
        "idle too": with_changed(idle, "layer.9.normalization.running_var", lambda variance: variance * 1.3),
    }.items():
        other.save_pretrained(folder / name)
        (folder / name / "preprocessor_config.json").write_bytes(
            (folder / "v1" / "preprocessor_config.json").read_bytes()
        )
    code, out, err = run("check", folder / "idle", folder / "photo.png", "--against", "reference", "--other",
                         folder / "idle too")  # fmt: skip
    assert (code, err) == (3, ""), "a batch norm of zeros hides what is before it"
    name = "mobilenet_v1.layer.9.normalization.running_var"
    assert out.splitlines()[-1] == (
        f"weights that are not ours, on the other side: {name}; with batch norm folded in they come to the same"
    )


def test_what_goes_wrong_is_one_sentence_and_its_exit_code(run: Run, folder: Path, monkeypatch) -> None:
    photo, model = folder / "photo.png", folder / "v1"
    code, out, err = run("check", model, photo, "--against", "caffe")
    assert code == 2 and out == "" and "caffe" in err
    code, out, err = run("check", model, folder / "none.png", "--against", "reference")
    assert code == 1 and out == "" and err.startswith("error: ") and "none.png" in err and err.count("\n") == 1
    code, out, err = run("check", model, photo, "--against", "reference", "--other", folder / "nothing")
    assert code == 1 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    monkeypatch.setattr("minimobile.storage.extras.import_module", _missing)
    code, out, err = run("check", model, photo)
    assert (code, out) == (1, "")
    assert err == (
        "error: torch: expected this package to compare with, it is not installed; "
        "python -m pip install 'minimobile[crosscheck]'\n"
    )
    code, out, err = run("check", model, photo, "--pixels")
    assert (code, out) == (1, "") and err.startswith("error: transformers: expected this package")


def test_a_quantised_file_beside_its_floats_in_steps(run: Run, folder: Path, quantized: Path) -> None:
    words = ("check", quantized, folder / "photo.png", "--against", "dequantized")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:2] == ["integers against dequantized: differences in steps", "(head. is segmentation_head.)"]
    assert lines[2].split() == ["layer", "shape", "step", "largest", "mean", "bias", "same", "clipped"]
    rows = [line.split() for line in lines[4:-1]]
    assert rows[0][:3] == ["conv_stem.first_conv", "8x16x16", "0.024"]
    assert 0.4 < float(rows[0][3]) < 0.6, "one rounding"
    assert rows[-1][0] == "head.classifier"
    worst = max(rows, key=lambda row: float(row[3]))
    name = worst[0].replace("head.", "segmentation_head.")
    assert lines[-1] == f"largest: {worst[3]} steps at {name}; the last layer's mean: {rows[-1][4]}"
    code, out, _ = run(*words, "--format", "json")
    layers = [layer.to_dict() | {"shape": [*layer.shape]} for layer in compare_with_dequantized(*words[1:3])]
    assert (code, json.loads(out)) == (0, {"against": "dequantized", "layers": layers})


def test_what_has_no_steps_to_count_is_one_sentence(run: Run, folder: Path, quantized: Path) -> None:
    photo = folder / "photo.png"
    code, out, err = run("check", folder / "v1", photo, "--against", "dequantized")
    wanted = "expected a quantised file to compare with its dequantised form, got one of floats"
    assert (code, out, err) == (1, "", f"error: {folder / 'v1'}: {wanted}\n")
    code, out, err = run("check", quantized, photo, "--against", "dequantized", "--other", folder / "v1")
    assert (code, out) == (2, "") and "--other" in err and err.count("\n") == 1
    code, out, err = run("check", quantized, folder / "none.png", "--against", "dequantized")
    assert (code, out) == (1, "") and "none.png" in err and err.count("\n") == 1


def test_pixels_beside_those_of_another_model(run: Run, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("minimobile.storage.extras.import_module", _missing)
    values = {"image_processor_type": "MobileNetV1ImageProcessor", **PROCESSOR, "image_mean": [0.0, 0.0, 0.0]}
    (folder / "padding" / "preprocessor_config.json").write_text(json.dumps(values))
    words = ("check", folder / "v1", folder / "photo.png", "--pixels", "--other", folder / "padding")
    code, out, err = run(*words)
    assert (code, err) == (1, "")
    assert out.splitlines()[-2:] == [
        "differs: the other's processor",
        "settings: image_mean (0.0, 0.0, 0.0) (ours: (0.5, 0.5, 0.5))",
    ]
    assert max(map(len, out.splitlines())) <= 80
    document = json.loads(run(*words, "--format", "json").out)
    assert document["agrees"] is False and document["first_difference"] == "the other's processor"
    rows = {row["name"]: row for row in document["pixels"]}
    assert rows["the other's processor"]["max_difference"] == pytest.approx(1)
    assert rows["transformers, PIL"]["is_equal"] is None
    assert rows["transformers, torchvision"]["is_equal"] in (None, False, True)
    assert rows["TensorFlow 1, bilinear"]["max_difference"] > 0


def _missing(name: str) -> None:
    raise ImportError(name)
