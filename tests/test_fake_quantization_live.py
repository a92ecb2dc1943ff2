"""The published network trained for quantisation, layer by layer beside TensorFlow run live on its frozen graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import frameworks
import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile import formats
from minimobile.engine import Engine
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.tensorflow.slim_names import layer_scopes
from minimobile.graph import INPUT, Graph
from minimobile.passes import layout_weights
from minimobile_kernels.reference import BLOCK, nudge_range

PORTRAIT = "deeplabv3_mobilenet_v2_0.5_513_portrait_quant_frozen.pb"
FIRST = "MobilenetV2/MobilenetV2/input"


class Live:
    """The frozen graph in TensorFlow, on one picture."""

    def __init__(self, path: Path, picture: Path) -> None:
        tf = frameworks.tensorflow()
        definition = tf.compat.v1.GraphDef()
        definition.ParseFromString(path.read_bytes())
        graph = tf.Graph()
        with graph.as_default():
            tf.compat.v1.import_graph_def(definition, name="")
        self.graph = graph
        self.session = tf.compat.v1.Session(graph=graph)
        image = Image.open(picture).convert("RGB")
        image.thumbnail((513, 513))
        self.feed = {"ImageTensor:0": np.asarray(image)[None]}

    def run(self, names: list[str]) -> list[Any]:
        """Return what operations compute."""
        found: list[Any] = self.session.run([f"{name}:0" for name in names], self.feed)
        return found


@pytest.fixture(scope="module")
def live(test_data: Path) -> Live:
    return Live(test_data / "models" / "tensorflow" / PORTRAIT, test_data / "images" / "cat.bmp")


@pytest.fixture(scope="module")
def checkpoint(test_data: Path) -> Checkpoint:
    return formats.read(test_data / "models" / "tensorflow" / PORTRAIT)


def with_biases_of(live: Live, checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with TensorFlow's own folded biases; its 1/sqrt is an approximation by the processor."""
    weights = dict(checkpoint.weights)
    scopes = {scope: layer for scope, layer in layer_scopes().items() if f"{layer}.normalization.bias" in weights}
    for layer, bias in zip(
        scopes.values(), live.run([f"{scope}/BatchNorm_Fold/bias" for scope in scopes]), strict=True
    ):
        weights[f"{layer}.normalization.bias"] = bias
        weights[f"{layer}.normalization.running_mean"] = np.zeros_like(bias)
    return dataclasses.replace(checkpoint, weights=weights)


@pytest.mark.crosscheck
def test_folded_and_rounded_weights_have_tensorflows_bits(live: Live, checkpoint: Checkpoint) -> None:
    model = mm.MobileNetV2ForSemanticSegmentation.from_checkpoint(checkpoint)
    rounded = {
        node.weights["weight"]: node
        for node in fold(model.graph).nodes
        if "weight_quantization" in node.attributes
    }  # fmt: skip
    scopes = {**layer_scopes(), "logits/semantic": "segmentation_head.classifier"}
    found = {f"{layer}.convolution.weight": scope for scope, layer in scopes.items()}
    theirs = live.run([f"{found[name]}/weights_quant/FakeQuantWithMinMaxVars" for name in rounded])
    total = 0
    for (name, node), expected in zip(rounded.items(), theirs, strict=True):
        ours, _ = layout_weights(node, checkpoint.weights, np.float32)
        order = (0, 1, 2, 3) if node.op == "depthwise_conv2d" else (3, 0, 1, 2)
        np.testing.assert_array_equal(ours.ravel(), expected.transpose(order).ravel(), err_msg=name)
        total += ours.size
    assert total == 674_816


def fold(graph: Graph) -> Graph:
    """Return the graph with its batch norms folded."""
    from minimobile.passes import fold_batch_norm

    return fold_batch_norm(graph)


@pytest.mark.crosscheck
def test_each_layer_is_on_tensorflows_steps(live: Live, checkpoint: Checkpoint) -> None:
    """Each from TensorFlow's own input to it, and with its folded biases.

    Convolutions of up to `BLOCK` terms give the same bits, as both sides sum in one chain of fused multiply-adds. The
    others (and depthwise ones, which TensorFlow does not fuse without oneDNN) may differ where a sum lies within
    rounding of the middle of two steps.
    """
    checkpoint = with_biases_of(live, checkpoint)
    model = mm.MobileNetV2ForSemanticSegmentation.from_checkpoint(checkpoint)
    nodes = {node.name: node for node in model.graph.nodes}
    names = [node.name for node in model.graph.nodes if node.op == "fake_quantize"]
    differing = total = 0
    for name in names:
        node, chain = nodes[name], [name]
        while node.op != "add" and not (node.weights and node.op != "batch_norm"):
            node = nodes[node.inputs[0]]
            chain.append(node.name)
        endpoints = [FIRST if source == INPUT else checkpoint.endpoints[source] for source in node.inputs]
        expected, *inputs = live.run([checkpoint.endpoints[name], *endpoints])
        if node.op == "add":
            inputs = [inputs[0] + inputs[1]]
            chain.remove(node.name)
        parts = [nodes[part] for part in reversed(chain)]
        parts[0] = dataclasses.replace(parts[0], inputs=(INPUT,))
        shapes = {weight: model.graph.shapes[weight] for part in parts for weight in part.weights.values()}
        alone = Graph(tuple(parts), inputs[0].shape[3], (name,), shapes)
        found = Engine(alone, checkpoint.weights, num_threads=1).run(inputs[0], [name], "channels_last")[name]
        terms = np.prod(next((shape for shape in shapes.values() if len(shape) == 4), (1, 1))[1:])
        if terms <= BLOCK and node.op != "depthwise_conv2d":
            np.testing.assert_array_equal(found, expected, err_msg=name)
        steps = np.abs(found - expected) / nudge_range(*nodes[name].attributes["quantization"]).step
        assert steps.max() < 1.01, name
        assert (steps > 0.5).mean() < 1e-3, name
        differing, total = differing + np.count_nonzero(steps > 0.5), total + steps.size
    assert differing / total < 2e-5, differing / total
