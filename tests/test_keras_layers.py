"""Each class of Keras' layers as a layer of a network, and configurations changed at random."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from keras_files import chain_config, v1_layers
from numpy.typing import NDArray

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import DIALECTS
from minimobile.formats.keras.keras_config import KerasLayer, parse_model
from minimobile.formats.keras.keras_graph import Call, FlatModel, flatten
from minimobile.formats.keras.keras_layers import IDENTITIES, translate_model
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.network import PICTURE, Layer

ARRAYS = {
    "kernel": np.arange(3 * 3 * 2 * 5, dtype=np.float32).reshape(3, 3, 2, 5),
    "depthwise_kernel": np.arange(18, dtype=np.float32).reshape(3, 3, 2, 1),
    **{name: np.full(5, 2.0, np.float32) for name in ("bias", "gamma", "beta", "moving_mean", "moving_variance")},
    "mean": np.array([1, 2, 3], np.float32),
    "variance": np.array([4, 16, 0], np.float32),
    "count": np.array(7),
}


def fetch(path: tuple[str, ...], roles: Any) -> Any:
    return {role: ARRAYS[role] for role in roles}, {role: f"{path[-1]}/{role}" for role in roles}


def translate(class_name: str, *arguments: Any, is_training: bool = False, **config: Any) -> list[Layer]:
    layer = KerasLayer("x", class_name, config)
    call = Call("x", ("x",), layer, arguments or (PICTURE,), is_training)
    return translate_model(FlatModel([call]), fetch, "f.keras")


def test_a_convolution_has_its_weight_in_pytorchs_layout() -> None:
    (layer,) = translate("Conv2D", strides=[2, 2], padding="same", dilation_rate=[1, 1])
    assert (layer.name, layer.op, layer.inputs) == ("x", "conv2d", (PICTURE,))
    assert layer.attributes == {"stride": 2, "dilation": 1, "padding": "SAME"}
    assert layer.arrays["weight"].shape == (5, 2, 3, 3)
    assert layer.arrays["weight"][4, 1, 0, 2] == ARRAYS["kernel"][0, 2, 1, 4]
    assert layer.array_names == {"weight": "x/kernel", "bias": "x/bias"}
    (layer,) = translate("DepthwiseConv2D", use_bias=False)
    assert layer.arrays["weight"].shape == (2, 1, 3, 3)
    assert layer.arrays["weight"][1, 0, 2, 0] == ARRAYS["depthwise_kernel"][2, 0, 1, 0]
    assert layer.attributes == {"stride": 1, "dilation": 1, "padding": "VALID"}


def test_a_fused_activation_is_a_layer_of_its_own() -> None:
    convolution, activation = translate("Conv2D", activation="relu")
    assert (activation.name, activation.op, activation.inputs) == ("x", "activation", (convolution.name,))
    assert activation.attributes == {"function": "relu"}


@pytest.mark.parametrize(
    ("class_name", "config", "function"),
    [
        ("ReLU", {"max_value": 6.0}, "relu6"),
        ("ReLU", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}, "relu"),
        ("Relu6", {}, "relu6"),
        ("TFOpLambda", {"function": "nn.relu6"}, "relu6"),
        ("Activation", {"activation": "relu6"}, "relu6"),
        ("Activation", {"activation": {"class_name": "function", "config": "relu6"}}, "relu6"),
        ("Activation", {"activation": {"class_name": "ReLU", "config": {"max_value": 6}}}, "relu6"),
        ("Activation", {"activation": "sigmoid"}, "sigmoid"),
        ("Softmax", {"axis": -1}, "softmax"),
    ],
)
def test_activations(class_name: str, config: dict[str, Any], function: str) -> None:
    (layer,) = translate(class_name, **config)
    assert (layer.op, layer.attributes) == ("activation", {"function": function})


def test_batch_norm_tells_its_own_epsilon_and_which_arrays_it_has() -> None:
    (layer,) = translate("BatchNormalization", axis=[3], epsilon=1e-5, scale=False)
    assert layer.op == "batch_norm"
    assert layer.attributes == {"epsilon": 1e-5}
    assert set(layer.arrays) == {"bias", "mean", "variance"}


@pytest.mark.parametrize(
    ("padding", "expected"), [(1, ((1, 1), (1, 1))), ([1, 2], ((1, 1), (2, 2))), ([[0, 1], [2, 3]], ((0, 1), (2, 3)))]
)
def test_zero_padding(padding: Any, expected: Any) -> None:
    assert translate("ZeroPadding2D", padding=padding)[0].attributes == {"padding": expected}


def test_pools() -> None:
    assert translate("GlobalAveragePooling2D")[0].attributes == {"kernel_size": None}
    (layer,) = translate("AveragePooling2D", pool_size=[7, 7], strides=None)
    assert layer.attributes == {"kernel_size": (7, 7), "stride": 7, "padding": "VALID"}


@pytest.mark.parametrize("class_name", sorted(IDENTITIES))
def test_what_does_nothing_at_inference_is_left_out(class_name: str) -> None:
    assert translate(class_name) == []
    assert translate("Activation", activation="linear") == []


@pytest.mark.parametrize("class_name", ["BatchNormalization", "Dropout", "RandomFlip"])
def test_what_is_in_training_for_good_is_refused(class_name: str) -> None:
    with pytest.raises(FormatError, match=f"layer 'x': .*found a {class_name} called with training=True"):
        translate(class_name, is_training=True)
    assert translate("BatchNormalization", is_training=True, trainable=False)[0].op == "batch_norm"
    assert translate("ReLU", is_training=True)[0].op == "activation"


@pytest.mark.parametrize(
    ("class_name", "arguments", "scale", "offset"),
    [
        ("TrueDivide", (PICTURE, 127.5), 1 / 127.5, 0),
        ("Subtract", (PICTURE, 1.0), 1, -1),
        ("Subtract", (1.0, PICTURE), -1, 1),
        ("Multiply", (2.0, PICTURE), 2, 0),
        ("Add", (PICTURE, 3.0), 1, 3),
    ],
)
def test_arithmetic_with_a_number_rescales(class_name: str, arguments: Any, scale: float, offset: float) -> None:
    (layer,) = translate(class_name, *arguments)
    assert (layer.op, layer.attributes) == ("rescale", {"scale": scale, "offset": offset})


def test_the_sum_of_two_layers_is_none_of_a_number() -> None:
    layers = [Call(name, (name,), KerasLayer(name, "Flatten", {}), (PICTURE,)) for name in "ab"]
    for class_name, config in (("Add", {}), ("TFOpLambda", {"function": "__operators__.add"})):
        call = Call("c", ("c",), KerasLayer("c", class_name, config), ("a", "b"))
        layer = translate_model(FlatModel([*layers, call]), fetch, "f")[-1]
        assert (layer.op, layer.inputs) == ("add", ("a", "b"))


def test_a_normalization_layer_with_its_numbers_in_the_config_or_in_arrays() -> None:
    (layer,) = translate("Normalization", axis=[-1], mean=[[[[1, 2, 3]]]], variance=[4, 16, 0])
    assert np.allclose(layer.attributes["scale"], [0.5, 0.25, 1e7], rtol=1e-12)  # at least 1e-7 as deviation
    assert np.allclose(layer.attributes["offset"], [-0.5, -0.5, -3e7], rtol=1e-12)
    (other,) = translate("Normalization", axis=[-1], mean=None)
    assert other.op == "rescale"
    assert not other.arrays
    assert np.array_equal(layer.attributes["scale"], other.attributes["scale"])


@pytest.mark.parametrize(
    ("class_name", "config", "match"),
    [
        ("LeakyReLU", {}, "expected a layer that MobileNets have, found a LeakyReLU"),
        ("GlobalMaxPooling2D", {}, "found a GlobalMaxPooling2D"),
        ("SeparableConv2D", {}, "found a SeparableConv2D"),
        ("Conv2D", {"data_format": "channels_first"}, "expected data_format channels_last"),
        ("Conv2D", {"groups": 2}, "expected groups 1"),
        ("DepthwiseConv2D", {"depth_multiplier": 2}, "expected depth_multiplier 1"),
        ("Conv2D", {"strides": [1, 2]}, "expected strides to be one number"),
        ("Conv2D", {"strides": [0, 0]}, "expected strides to be one number"),
        ("Conv2D", {"padding": "causal"}, "expected padding same or valid, found 'causal'"),
        ("Conv2D", {"activation": "swish"}, "expected an activation among"),
        ("ReLU", {"max_value": 1.0}, "expected a ReLU without a limit or with the limit 6, found max_value 1.0"),
        ("ReLU", {"negative_slope": 0.1}, "negative_slope 0.1"),
        ("BatchNormalization", {"axis": 1}, "expected batch norm over the last axis, found axis 1"),
        ("BatchNormalization", {"epsilon": -1}, "expected an epsilon from 0 to 1"),
        ("Softmax", {"axis": 1}, "expected softmax over the last axis"),
        ("ZeroPadding2D", {"padding": -1}, "expected padding"),
        ("AveragePooling2D", {"pool_size": [0, 7]}, "expected pool_size"),
        ("Dense", {}, "expected a weight of 2 dimensions"),
        ("Normalization", {"axis": 1, "mean": 1, "variance": 1}, "expected a Normalization over the last axis"),
        ("Normalization", {"mean": [1, 2], "variance": [1]}, "expected as many variances as means"),
        ("Normalization", {"mean": 0, "variance": -1}, "variances of zero or more"),
        ("TFOpLambda", {"function": 3}, "function: expected str"),
    ],
)
def test_what_no_mobilenet_has_is_named(class_name: str, config: dict[str, Any], match: str) -> None:
    with pytest.raises(FormatError, match=rf"f\.keras: layer 'x': .*{match}"):
        translate(class_name, **config)


VALUES: tuple[Any, ...] = (
    *(None, -1, 0, 1, 7, 1e308, -0.5, True, 10**30, "", "x", "input_1", "conv1", "same", "valid", "softmax"),
    *([], {}, [1], [[1, 2], [3, 4]], [None], {"a": 1}, [["conv1", 0, 0, {}]], ["conv1", 0, 0]),
    *("Sequential", "Functional", "Add", "Normalization", "Flatten", "TFOpLambda", "AveragePooling2D", "Rescaling"),
    {"class_name": "function", "config": "relu6"},
)
KEYS = ("data_format", "activation", "groups", "use_bias", "dilation_rate", "strides", "axis", "mean", "function")


def change(config: dict[str, Any], dice: random.Random) -> None:
    """Replace, remove or add something anywhere in a configuration."""
    place: Any = config
    for _ in range(dice.randint(1, 9)):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = dice.choice(keys)
        if isinstance(place[key], dict | list) and dice.random() < 0.8:
            place = place[key]
            continue
        action = dice.random()
        if action < 0.15:
            del place[key]
        elif action < 0.3 and isinstance(place, dict):
            place[dice.choice(KEYS)] = dice.choice(VALUES)
        else:
            place[key] = dice.choice(VALUES)


def changed_configs(count: int, seed: int) -> Iterator[dict[str, Any]]:
    dice = random.Random(seed)
    specs = v1_layers()
    whole = [chain_config(specs, form) for form in ("keras2", "keras3", "sequential")]
    for _ in range(count):
        config = copy.deepcopy(dice.choice(whole))
        for _ in range(dice.choice((1, 1, 3))):
            change(config, dice)
        yield config


def load(config: dict[str, Any], written: Mapping[str, Mapping[str, NDArray[Any]]]) -> Checkpoint:

    def fetch_written(path: tuple[str, ...], roles: Any) -> Any:
        arrays = written.get(path[-1], {})
        if list(arrays) != list(roles):
            raise FormatError("f: other arrays")
        return arrays, {role: f"{path[-1]}/{role}" for role in roles}

    flat = flatten(parse_model(config, "f"), "f")
    layers = translate_model(flat, fetch_written, "f")
    height, width, _ = flat.input_shape or (None, None, None)
    size = (height, width) if height is not None and width is not None else None
    return match_network(layers, DIALECTS["keras"], "f", image_size=size)


@pytest.mark.parametrize(("count", "seed"), [(50, 1), pytest.param(5000, 2, marks=pytest.mark.slow)])
def test_a_changed_configuration_is_refused_or_loads(count: int, seed: int) -> None:
    written = {spec.name: spec.arrays for spec in v1_layers()}
    refused = 0
    for config in changed_configs(count, seed):
        try:
            load(config, written)
        except MinimobileError:
            refused += 1
    assert count / 2 < refused < count  # what changes a name or a default loads
