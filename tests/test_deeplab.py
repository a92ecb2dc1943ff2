"""DeepLabV3 on MobileNet V2 as a graph."""

from __future__ import annotations

import pytest
import twins

from minimobile.errors import ConfigError
from minimobile.networks.config import MobileNetV2Config
from minimobile.networks.deeplab import build
from minimobile.networks.graph import needed_nodes
from minimobile.operations.shapes import infer_shapes

HEAD = ["avg_pool", "conv_pool", "upsample", "conv_aspp", "concat", "conv_projection", "classifier"]


def test_the_head_joins_the_pooled_image_and_a_convolution():
    graph = build(MobileNetV2Config(num_labels=21, output_stride=8))
    names = [name for name in HEAD if any(node.name == f"segmentation_head.{name}" for node in graph.nodes)]
    assert names == HEAD and not any("dropout" in node.name for node in graph.nodes)
    assert graph.node("segmentation_head.concat").inputs == (
        "segmentation_head.upsample",
        "segmentation_head.conv_aspp",
    )
    upsample = graph.node("segmentation_head.upsample")
    assert upsample.inputs == ("segmentation_head.conv_pool", "layer.15.reduce_1x1")
    assert upsample.attributes == {"align_corners": True}
    shapes = infer_shapes(graph, 513, 257)
    assert shapes["segmentation_head.concat"] == (512, 65, 33)
    assert shapes[graph.outputs[0]] == (21, 65, 33)


def test_the_head_has_its_own_epsilon_and_activation():
    graph = build(MobileNetV2Config(hidden_act="silu", layer_norm_eps=0.01))
    head = [node for node in graph.nodes if node.name.startswith("segmentation_head.")]
    assert {node.attributes["epsilon"] for node in head if node.op == "batch_norm"} == {1e-5}
    assert {node.attributes["function"] for node in head if node.op == "activation"} == {"relu"}
    assert graph.node("layer.0.expand_1x1").attributes == {"function": "silu"}
    assert graph.node("layer.0.reduce_1x1").attributes == {"epsilon": 0.01}


def test_nothing_needs_the_last_convolution():
    graph = build(MobileNetV2Config())
    needed = {node.name for node in needed_nodes(graph, (*graph.outputs, *graph.hidden_states))}
    assert {node.name for node in graph.nodes} - needed == {
        "conv_1x1.convolution",
        "conv_1x1.normalization",
        "conv_1x1",
    }
    assert graph.resolve("last_hidden_state") == "conv_1x1"


def test_names():
    graph = build(MobileNetV2Config())
    expected = {
        "logits": "segmentation_head.classifier", "Logits": "segmentation_head.classifier",
        "logits/semantic": "segmentation_head.classifier", "segmentation_head": "segmentation_head.classifier",
        "image_pooling": "segmentation_head.conv_pool", "aspp0": "segmentation_head.conv_aspp",
        "concat_projection": "segmentation_head.conv_projection", "layer_18": "layer.15.reduce_1x1",
        "segmentation_head.classifier.convolution": "segmentation_head.classifier",
    }  # fmt: skip
    assert {name: graph.resolve(name) for name in expected} == expected
    assert len(graph.hidden_states) == 16


def test_the_classifier_is_a_convolution_with_bias():
    graph = build(MobileNetV2Config(num_labels=21))
    classifier = graph.node("segmentation_head.classifier")
    assert classifier.op == "pointwise_conv2d" and set(classifier.weights) == {"weight", "bias"}
    assert graph.shapes["segmentation_head.classifier.convolution.weight"] == (21, 256, 1, 1)


def test_no_labels_cannot_be():
    with pytest.raises(ConfigError, match="1 or more for segmentation"):
        build(MobileNetV2Config(num_labels=0))


@pytest.mark.crosscheck
@pytest.mark.parametrize("options", [{}, {"depth_multiplier": 0.5, "depth_divisible_by": 1, "num_labels": 21}])
def test_names_and_shapes_of_transformers(options):
    twins.import_torch()
    import transformers

    config = MobileNetV2Config(**options)
    model = transformers.MobileNetV2ForSemanticSegmentation(twins.twin_config(config))
    theirs = twins.canonical_weights(model, "mobilenet_v2")
    assert {name: values.shape for name, values in theirs.items()} == dict(build(config).shapes)
