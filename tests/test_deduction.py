"""From the shapes of weights to the config of the network that has them."""

from __future__ import annotations

import numpy as np
import pytest

from minimobile.errors import FormatError
from minimobile.formats.deduction import build_checkpoint, deduce_config
from minimobile.formats.dialects import DIALECTS
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

V1 = "MobileNetV1ForImageClassification"
V2 = "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"


def weights_of(architecture, **fields):
    config = (MobileNetV1Config if "V1" in architecture else MobileNetV2Config)(**fields)
    return {name: np.zeros(shape, np.float32) for name, shape in build_graph(config, architecture).shapes.items()}


@pytest.mark.parametrize("architecture", [V1, V2, DEEPLAB, "MobileNetV1Model", "MobileNetV2Model"])
@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, 0.62])
def test_the_width_is_found(architecture, width):
    divisor = {"depth_divisible_by": 1} if architecture == DEEPLAB else {}
    weights = weights_of(architecture, depth_multiplier=width, num_labels=5, num_channels=1, **divisor)
    config = deduce_config(weights, DIALECTS["slim"], "here")
    assert config.depth_multiplier == width
    assert config.num_channels == 1
    assert config.num_labels == (2 if architecture.endswith("Model") else 5)
    shapes = {name: values.shape for name, values in weights.items()}
    assert build_graph(config, architecture).shapes == shapes


@pytest.mark.parametrize(
    "fields",
    [
        {"finegrained_output": False, "depth_multiplier": 0.5},
        {"first_layer_is_expansion": False},
        {"expand_ratio": 4.0},
        {"depth_multiplier": 0.35, "depth_divisible_by": 1},
        {"depth_multiplier": 0.035},
    ],
)
def test_unusual_networks_get_a_config_with_their_shapes(fields):
    weights = weights_of(V2, num_labels=7, **fields)
    config = deduce_config(weights, DIALECTS["slim"], "here")
    assert build_graph(config, V2).shapes == {name: values.shape for name, values in weights.items()}


def test_the_dialect_fills_what_shapes_do_not_tell():
    weights = weights_of(V1, num_labels=1000)
    keras = build_checkpoint(weights, DIALECTS["keras"], "here", image_size=(192, 160))
    assert keras.config.tf_padding
    assert keras.config.bottom_right_padding == "depthwise"
    assert keras.config.image_size == (192, 160)
    assert keras.dialect == keras.provenance["dialect"] == "keras"
    assert keras.processor is not None
    assert keras.processor["size"] == {"height": 192, "width": 160}
    torchvision = build_checkpoint(weights_of(V2), DIALECTS["torchvision"], "here")
    assert not torchvision.config.tf_padding
    assert torchvision.config.layer_norm_eps == 1e-5
    assert torchvision.config.bottom_right_padding is None


def test_what_the_source_tells_goes_before_the_dialect():
    config = deduce_config(weights_of(V1), DIALECTS["keras"], "here", bottom_right_padding="all", hidden_act="relu")
    assert (config.bottom_right_padding, config.hidden_act) == ("all", "relu")


def test_a_layer_that_fits_no_width_is_named():
    weights = weights_of(V2)
    name = "mobilenet_v2.layer.3.reduce_1x1.convolution.weight"
    weights[name] = np.zeros((40, 144, 1, 1), np.float32)
    with pytest.raises(FormatError, match=r"here: mobilenet_v2.layer.3.*expected \(32, .*width 1,.*found \(40, "):
        deduce_config(weights, DIALECTS["slim"], "here")
    with pytest.raises(FormatError, match="first convolution"):
        deduce_config({"classifier.weight": np.zeros((3, 4))}, DIALECTS["slim"], "here")


@pytest.mark.parametrize("name", ["mobilenet_v2.conv_stem.first_conv.convolution.weight", "classifier.weight"])
@pytest.mark.parametrize("shape", [(), (0,), (32,)])
def test_a_weight_without_its_dimensions_is_named(name, shape):
    weights = weights_of(V2) | {name: np.zeros(shape, np.float32)}
    with pytest.raises(FormatError, match=rf"here: {name}: expected the weight of a convolution, found \("):
        deduce_config(weights, DIALECTS["slim"], "here")
