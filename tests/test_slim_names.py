"""TF-slim's names: every layer of the three networks, moving averages, and what is ignored or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from slim import random_weights, slim_variables

from minimobile.errors import FormatError
from minimobile.formats.tensorflow.slim_names import canonical_weights, find_node, variable_targets
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

NETWORKS = {
    "MobileNetV1ForImageClassification": MobileNetV1Config(depth_multiplier=0.1, num_labels=3),
    "MobileNetV2ForImageClassification": MobileNetV2Config(
        depth_multiplier=0.1, num_labels=3, first_layer_is_expansion=False
    ),
    "MobileNetV2ForSemanticSegmentation": MobileNetV2Config(depth_multiplier=0.1, num_labels=3),
}


@pytest.mark.parametrize("architecture", NETWORKS)
def test_every_weight_of_a_network_comes_back_under_its_name_and_in_its_layout(architecture: str) -> None:
    expected = random_weights(NETWORKS[architecture], architecture)
    weights, mapped, ignored = canonical_weights(slim_variables(expected), "x")
    assert set(weights) == set(expected) == set(mapped.values())
    assert not ignored
    for name, values in expected.items():
        assert np.array_equal(weights[name], values), name


def test_the_published_names_are_known() -> None:
    targets = variable_targets()
    for name, canonical in {
        "MobilenetV1/Conv2d_0/weights": "mobilenet_v1.conv_stem.convolution.weight",
        "MobilenetV1/Conv2d_13_pointwise/BatchNorm/moving_variance": "mobilenet_v1.layer.25.normalization.running_var",
        "MobilenetV1/Logits/Conv2d_1c_1x1/biases": "classifier.bias",
        "MobilenetV2/expanded_conv/project/weights": "mobilenet_v2.conv_stem.reduce_1x1.convolution.weight",
        "MobilenetV2/expanded_conv_16/expand/BatchNorm/gamma": "mobilenet_v2.layer.15.expand_1x1.normalization.weight",
        "aspp0/BatchNorm/beta": "segmentation_head.conv_aspp.normalization.bias",
        "logits/semantic/weights": "segmentation_head.classifier.convolution.weight",
    }.items():
        assert targets[name].canonical == canonical


class Watched(Mapping[str, Any]):
    """Arrays that note who is looked up."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays, self.asked = arrays, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def test_moving_averages_are_taken_where_transformers_takes_them() -> None:
    average = "/ExponentialMovingAverage"
    taken = ("MobilenetV1/Conv2d_0/weights", "MobilenetV1/Conv2d_0/BatchNorm/beta")
    kept = ("MobilenetV1/Conv2d_0/BatchNorm/moving_mean", "aspp0/BatchNorm/beta")
    variables = Watched(
        {name: np.zeros((1, 1, 3, 8) if "weights" in name else 8) for name in taken + kept}
        | {name + average: np.ones((1, 1, 3, 8) if "weights" in name else 8) for name in taken + kept}
        | {taken[0] + "/RMSProp_1": np.zeros(8), "global_step": np.zeros((), np.int64), "loss/avg": np.zeros(())}
    )
    weights, mapped, ignored = canonical_weights(variables, "x")
    assert weights["mobilenet_v1.conv_stem.convolution.weight"].all()
    assert weights["mobilenet_v1.conv_stem.normalization.bias"].all()
    assert not weights["mobilenet_v1.conv_stem.normalization.running_mean"].any()
    assert not weights["segmentation_head.conv_aspp.normalization.bias"].any()
    assert set(mapped) == {taken[0] + average, taken[1] + average, *kept}
    assert ignored == {
        **dict.fromkeys(taken, "its moving average is taken"),
        **{name + average: "the variable itself is taken" for name in kept},
        taken[0] + "/RMSProp_1": "state of the optimiser",
        "global_step": "number of training steps",
        "loss/avg": "no weight of a layer",
    }
    assert variables.asked == {*mapped, "loss/avg"}


def test_layouts_are_views() -> None:
    kernel = np.zeros((3, 3, 3, 8), np.float32)
    weights, _, _ = canonical_weights({"MobilenetV1/Conv2d_0/weights": kernel}, "x")
    assert np.shares_memory(*weights.values(), kernel)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("decoder/decoder_conv0_depthwise/depthwise_weights", (3, 3, 304, 1), "another network"),
        ("FeatureExtractor/MobilenetV1/Conv2d_0/weights", (3, 3, 3, 8), "another network"),
        ("MobilenetV2/expanded_conv_17/expand/weights", (1, 1, 8, 48), "another network"),
        ("MobilenetV1/Conv2d_0/biases", (8,), "another network"),
        ("MobilenetV1/Conv2d_0/weights", (3, 3, 3), r"expected 4 dimensions, found shape \(3, 3, 3\)"),
        ("MobilenetV1/Logits/Conv2d_1c_1x1/weights", (3, 3, 8, 5), r"expected \(1, 1, I, O\)"),
    ],
)
def test_what_is_no_float_mobilenet_is_refused(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(FormatError, match=rf"^x: .*{match}"):
        canonical_weights({name: np.zeros(shape, np.float32)}, "x")


@pytest.mark.parametrize(
    ("operation", "node"),
    [
        ("MobilenetV1/MobilenetV1/Conv2d_13_pointwise/Relu6", "layer.25"),
        ("MobilenetV2/Conv/Relu6", "conv_stem.first_conv"),
        ("MobilenetV2/expanded_conv/project/BatchNorm/FusedBatchNorm", "conv_stem.reduce_1x1"),
        ("MobilenetV2/expanded_conv_10/expand/Relu6", "layer.9.expand_1x1"),
        ("MobilenetV2/expanded_conv_10/add", "layer.9"),
        ("MobilenetV1/Logits/Conv2d_1c_1x1/BiasAdd", "classifier"),
        ("logits/semantic/BiasAdd", "segmentation_head.classifier"),
        ("MobilenetV1/Predictions/Reshape_1", None),
    ],
)
def test_operations_lead_to_our_nodes(operation: str, node: str | None) -> None:
    assert find_node(operation) == node
