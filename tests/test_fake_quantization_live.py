"""The published network trained for quantisation beside TensorFlow: recorded, and live on its frozen graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import open_runner
from tensorflow_process import run_frozen_graph

import minimobile as mm
from minimobile import formats
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.tensorflow.slim_names import layer_scopes
from minimobile.networks.graph import INPUT, Graph
from minimobile.operations.passes import fold_batch_norm
from minimobile.operations.table import is_convolution, layout_weights
from minimobile_kernels.reference import nudge_range

PORTRAIT = "deeplabv3_mobilenet_v2_0.5_513_portrait_quant_frozen.pb"
FIRST = "MobilenetV2/MobilenetV2/input"
LAST = "logits/semantic/act_quant/FakeQuantWithMinMaxVars"
RECORDED = "deeplabv3_portrait_quant_intel_logits.npz"  # TensorFlow 2.21 on an Intel processor
LAYERS = {**layer_scopes(), "logits/semantic": "segmentation_head.classifier"}
SCOPES = {f"{layer}.convolution.weight": scope for scope, layer in LAYERS.items()}


@pytest.fixture(scope="module")
def checkpoint(test_data: Path) -> Checkpoint:
    return formats.read(test_data / "models" / "tensorflow" / PORTRAIT)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Any:
    return mm.MobileNetV2ForSemanticSegmentation.from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def live(
    test_data: Path, checkpoint: Checkpoint, model: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return what TensorFlow computes by operation: weights, biases and what layers give for a picture of a cat."""
    operations = ("fake_quantize", "global_average_pool2d", "resize_bilinear", "concatenate")
    names = [FIRST] + [checkpoint.endpoints[node.name] for node in model.graph.nodes if node.op in operations]
    for scope in (SCOPES[node.weights["weight"]] for node in model.graph.nodes if is_convolution(node)):
        names += [f"{scope}/weights_quant/FakeQuantWithMinMaxVars", bias_name(scope)]
    path = test_data / "models" / "tensorflow" / PORTRAIT
    return run_frozen_graph(path, test_data / "images" / "cat.bmp", 513, names, tmp_path_factory.mktemp("live"))


def bias_name(scope: str) -> str:
    """Return the operation that gives a layer's bias."""
    return f"{scope}/biases/read" if scope == "logits/semantic" else f"{scope}/BatchNorm_Fold/bias"


@pytest.mark.crosscheck
def test_every_logit_is_the_one_that_tensorflow_gave_on_an_intel_processor(model: Any, test_data: Path) -> None:
    with np.load(test_data / "models" / "tensorflow" / RECORDED) as recorded:
        for picture in (0, 1):
            pixel_values = model.processor(recorded[f"image{picture}"], return_tensors="np")["pixel_values"]
            expected = recorded[f"logits{picture}"].transpose(2, 0, 1)[None]  # (1, 2, 65, 65)
            assert len(np.unique(expected)) > 25
            np.testing.assert_array_equal(model(pixel_values).logits, expected)


@pytest.mark.crosscheck
def test_logits_are_on_tensorflows_steps(live: dict[str, Any], model: Any, test_data: Path, tmp_path: Path) -> None:
    path, picture = test_data / "models" / "tensorflow" / PORTRAIT, test_data / "images" / "parrot.jpg"
    step = nudge_range(*model.graph.node("segmentation_head.classifier").attributes["quantization"]).step
    for values in (live, run_frozen_graph(path, picture, 513, [FIRST, LAST], tmp_path)):
        logits = model(values[FIRST], data_format="channels_last").logits
        assert logits.shape == values[LAST].shape == (1, 65, 65, 2)
        assert len(np.unique(logits)) > 100
        assert (np.abs(logits - values[LAST]) < step / 2).mean() >= 0.999


@pytest.mark.crosscheck
def test_folded_and_rounded_weights_have_tensorflows_bits(
    live: dict[str, Any], checkpoint: Checkpoint, model: Any
) -> None:
    """All but one bias: the head's epsilon is 1.001e-5 in the file, and 1e-5 with 1e-8 more of variance here."""
    total = differing = 0
    for node in (node for node in fold_batch_norm(model.graph).nodes if is_convolution(node)):
        scope = SCOPES[node.weights["weight"]]
        weight, bias = layout_weights(node, checkpoint.weights, np.float32)
        order = (0, 1, 2, 3) if node.op == "depthwise_conv2d" else (3, 0, 1, 2)
        expected = live[f"{scope}/weights_quant/FakeQuantWithMinMaxVars"].transpose(order)
        np.testing.assert_array_equal(weight.ravel(), expected.ravel(), err_msg=scope)
        np.testing.assert_array_max_ulp(bias, live[bias_name(scope)], maxulp=1)
        differing += np.count_nonzero(bias != live[bias_name(scope)])
        total += weight.size
    assert total == 674_816
    assert differing <= 1


@pytest.mark.crosscheck
def test_each_layer_has_tensorflows_bits(live: dict[str, Any], checkpoint: Checkpoint, model: Any) -> None:
    """Each from TensorFlow's own input to it."""
    nodes = {node.name: node for node in model.graph.nodes}
    total = 0
    for name in [node.name for node in model.graph.nodes if node.op in ("fake_quantize", "global_average_pool2d")]:
        node, chain = nodes[name], [name]
        while node.op not in ("add", "global_average_pool2d") and not (node.weights and node.op != "batch_norm"):
            node = nodes[node.inputs[0]]
            chain.append(node.name)
        inputs = [live[FIRST if source == INPUT else checkpoint.endpoints[source]] for source in node.inputs]
        if node.op == "add":
            inputs = [inputs[0] + inputs[1]]
            chain.remove(node.name)
        parts = [nodes[part] for part in reversed(chain)]
        parts[0] = dataclasses.replace(parts[0], inputs=(INPUT,))
        shapes = {weight: model.graph.shapes[weight] for part in parts for weight in part.weights.values()}
        alone = Graph(tuple(parts), inputs[0].shape[3], (name,), shapes)
        found = open_runner(alone, checkpoint.weights, num_threads=1).run(inputs[0], [name], "channels_last")[name]
        np.testing.assert_array_equal(found, live[checkpoint.endpoints[name]], err_msg=name)
        total += found.size
    assert total == 46_337_118 + 160
