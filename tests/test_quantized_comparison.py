"""Integers beside the floats that they stand for: one rounding a layer, and what the network makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.comparison.quantized_steps import compare_with_dequantized
from minimobile.errors import InputError
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config


def test_the_first_layer_is_off_by_half_a_step_and_the_rest_by_what_follows(tmp_path):
    config = MobileNetV1Config(depth_multiplier=0.1, min_depth=1, num_labels=3)
    graph = build_graph(config, "MobileNetV1ForImageClassification")
    layers = spell(graph, random_weights(graph), folded=True)
    path = tmp_path / "model.tflite"
    path.write_bytes(write_quantized(layers, dtype="int8").write())
    x = np.random.default_rng(0).integers(-128, 128, (2, 3, 32, 32)).astype(np.float32) / 128
    rows = compare_with_dequantized(path, pixel_values=x)
    assert [row.name for row in rows][:2] == ["conv_stem", "layer.0"]
    assert rows[0].shape == (3, 16, 16)
    assert 0.4 < rows[0].largest <= 0.51  # the bias is rounded too
    assert rows[0].step == pytest.approx(6 / 255)
    assert 0.05 < rows[0].mean < 0.3
    assert abs(rows[0].bias) < 0.05
    assert 0.98 < rows[0].same < 1, "only what lies between two bytes goes either way"
    assert min(row.same for row in rows) < rows[0].same
    assert 0.51 < max(row.largest for row in rows) < 20
    assert rows[0].to_dict()["name"] == "conv_stem"
    for wrong in ({}, {"image": "picture.png", "pixel_values": x}):
        with pytest.raises(InputError, match="one of them"):
            compare_with_dequantized(path, **wrong)
    with pytest.raises(InputError, match="a quantised file"):
        compare_with_dequantized("demo:digits", pixel_values=x)


IMAGENET = {"cat.bmp": "Egyptian cat", "parrot.jpg": "macaw", "grace_hopper.bmp": "military uniform"}


@pytest.mark.crosscheck
def test_quantised_v2_sees_what_its_floats_see(test_data):
    path = test_data / "models" / "tflite" / "mobilenet_v2_1.0_224_quant.tflite"
    integers, floats = mm.load(path), mm.load(path, dequantize=True)
    for name, label in IMAGENET.items():
        ours, theirs = (mm.classify(test_data / "images" / name, model=model, top=1)[0] for model in (integers, floats))
        assert ours["label"].startswith(label) and theirs["label"].startswith(label)
        assert abs(ours["probability"] - theirs["probability"]) < 0.06
        rows = compare_with_dequantized(path, test_data / "images" / name)
        assert len(rows) == 64
        assert rows[0].largest < 0.52
        assert rows[-1].name == "classifier" and rows[-1].mean < 1.2
