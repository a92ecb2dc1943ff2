"""MobileNet V1 as a graph: the paper's table, TF-slim's names and strides; as cross-checks, a network in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import twins

import minimobile as mm
from minimobile.costs.profile import profile
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.config import MobileNetV1Config
from minimobile.networks.mobilenet_v1 import build
from minimobile.operations.shapes import infer_shapes

# arXiv:1704.04861, Table 1: (type, stride, channels in, channels out, input size). The paper prints "s2" in the last
# row but one; its sizes, and every implementation, have stride 1.
TABLE = [
    ("conv2d", 2, 3, 32, 224),
    ("depthwise_conv2d", 1, 32, 32, 112), ("pointwise_conv2d", 1, 32, 64, 112),
    ("depthwise_conv2d", 2, 64, 64, 112), ("pointwise_conv2d", 1, 64, 128, 56),
    ("depthwise_conv2d", 1, 128, 128, 56), ("pointwise_conv2d", 1, 128, 128, 56),
    ("depthwise_conv2d", 2, 128, 128, 56), ("pointwise_conv2d", 1, 128, 256, 28),
    ("depthwise_conv2d", 1, 256, 256, 28), ("pointwise_conv2d", 1, 256, 256, 28),
    ("depthwise_conv2d", 2, 256, 256, 28), ("pointwise_conv2d", 1, 256, 512, 14),
    *5 * [("depthwise_conv2d", 1, 512, 512, 14), ("pointwise_conv2d", 1, 512, 512, 14)],
    ("depthwise_conv2d", 2, 512, 512, 14), ("pointwise_conv2d", 1, 512, 1024, 7),
    ("depthwise_conv2d", 1, 1024, 1024, 7), ("pointwise_conv2d", 1, 1024, 1024, 7),
]  # fmt: skip


def depthwise_windows(graph):
    nodes = [node for node in graph.nodes if node.op == "depthwise_conv2d"]
    return [(node.attributes["stride"], node.attributes["dilation"]) for node in nodes]


def test_the_paper_s_table_1():
    graph = build(MobileNetV1Config(num_labels=1000), head="classification")
    shapes = infer_shapes(graph, 224, 224)
    rows = []
    for node in graph.nodes:
        if node.name.endswith(".convolution"):
            (channels, height, _), weight = shapes[node.inputs[0]], graph.shapes[node.weights["weight"]]
            rows.append((node.op, node.attributes.get("stride", 1), channels, weight[0], height))
    assert rows == TABLE
    assert [node.name for node in graph.nodes[-2:]] == ["pooler", "classifier"]
    assert shapes["classifier"] == (1000, 1, 1)


@pytest.mark.parametrize(("width", "min_depth", "stem", "last"), [(0.25, 8, 8, 256), (0.1, 8, 8, 102), (0.1, 1, 3, 102),
                                                                  (0.77, 8, 24, 788), (1.4, 8, 44, 1433)])  # fmt: skip
def test_channels_are_cut_not_rounded(width, min_depth, stem, last):
    graph = build(MobileNetV1Config(depth_multiplier=width, min_depth=min_depth))
    assert graph.shapes["mobilenet_v1.conv_stem.convolution.weight"] == (stem, 3, 3, 3)
    assert graph.shapes["mobilenet_v1.layer.25.convolution.weight"][0] == last


@pytest.mark.parametrize(
    ("output_stride", "windows"),
    [
        (32, {2: (2, 1), 4: (2, 1), 6: (2, 1), 12: (2, 1)}),
        (16, {2: (2, 1), 4: (2, 1), 6: (2, 1), 13: (1, 2)}),
        (8, {2: (2, 1), 4: (2, 1), **dict.fromkeys(range(7, 13), (1, 2)), 13: (1, 4)}),
        (4, {2: (2, 1), **dict.fromkeys((5, 6), (1, 2)), **dict.fromkeys(range(7, 13), (1, 4)), 13: (1, 8)}),
    ],
)
def test_output_strides_of_slim(output_stride, windows):
    graph = build(MobileNetV1Config(output_stride=output_stride))
    assert depthwise_windows(graph) == [windows.get(n, (1, 1)) for n in range(1, 14)]
    assert infer_shapes(graph, 224, 225)["layer.25"][1:] == (224 // output_stride, -(-225 // output_stride))


def test_names_of_slim():
    graph = build(MobileNetV1Config(), head="classification")
    assert graph.resolve("Conv2d_0") == "conv_stem"
    assert [graph.resolve(f"Conv2d_{n}_depthwise") for n in (1, 13)] == ["layer.0", "layer.24"]
    assert [graph.resolve(f"Conv2d_{n}_pointwise") for n in (1, 13)] == ["layer.1", "layer.25"]
    expected = {
        "AvgPool_1a": "pooler", "global_pool": "pooler", "pooler_output": "pooler", "logits": "classifier",
        "Logits": "classifier", "last_hidden_state": "layer.25", "mobilenet_v1.layer.3": "layer.3",
    }  # fmt: skip
    assert {name: graph.resolve(name) for name in expected} == expected


def test_hidden_states_are_the_26_layers():
    graph = build(MobileNetV1Config())
    assert graph.hidden_states == tuple(f"layer.{i}" for i in range(26)) and graph.outputs == ("layer.25", "pooler")


@pytest.mark.parametrize(("tf_padding", "padding"), [(True, "SAME"), (False, ((1, 1), (1, 1)))])
def test_padding_rules(tf_padding, padding):
    graph = build(MobileNetV1Config(tf_padding=tf_padding))
    assert {node.attributes["padding"] for node in graph.nodes if "padding" in node.attributes} == {padding}
    dilated = build(MobileNetV1Config(tf_padding=False, output_stride=8)).node("layer.24.convolution")
    assert dilated.attributes["padding"] == ((4, 4), (4, 4)) and dilated.attributes["dilation"] == 4


@pytest.mark.parametrize(("rule", "stem"), [("depthwise", "SAME"), ("all", ((0, 1), (0, 1)))])
def test_keras_padding_is_that_of_strided_layers_alone(rule, stem):
    graph = build(MobileNetV1Config(bottom_right_padding=rule))
    paddings = {node.name: node.attributes["padding"] for node in graph.nodes if "padding" in node.attributes}
    strided = [f"layer.{index}.convolution" for index in (2, 6, 10, 22)]
    assert paddings["conv_stem.convolution"] == stem
    assert all(paddings[name] == ((0, 1), (0, 1)) for name in strided)
    assert all(paddings[name] == "SAME" for name in paddings if name not in [*strided, "conv_stem.convolution"])
    assert infer_shapes(graph, 225, 225)["layer.2"][1:] == (56, 56)  # TensorFlow's SAME has 57


def test_heads():
    assert "classifier" not in {node.name for node in build(MobileNetV1Config()).nodes}
    no_labels = build(MobileNetV1Config(num_labels=0), head="classification")
    assert no_labels.outputs == ("pooler",) and no_labels.resolve("Logits") == "pooler"
    fixed = build(MobileNetV1Config(pool_size=7)).node("pooler")
    assert (fixed.op, fixed.attributes) == ("average_pool2d", {"kernel_size": 7, "stride": 2})
    assert profile(build(MobileNetV1Config(num_channels=1)), 64).layers[0].parameters == 9 * 32 + 64


@pytest.mark.parametrize(
    ("activation", "nodes"), [("linear", 2 * 27 + 1), ("relu6", 3 * 27 + 1), ("swish", 3 * 27 + 1)]
)
def test_activations(activation, nodes):
    graph = build(MobileNetV1Config(hidden_act=activation))
    assert len(graph.nodes) == nodes
    functions = {node.attributes["function"] for node in graph.nodes if node.op == "activation"}
    assert functions == {"linear": set(), "relu6": {"relu6"}, "swish": {"silu"}}[activation]


# --- against an independent network in PyTorch ---

SLIM_STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


def slim_windows(output_stride):
    """TF-slim's loop of mobilenet_v1_base, written down again: (stride, rate) of the stem and the depthwise layers."""
    current, rate, windows = 1, 1, []
    for stride in [2, *SLIM_STRIDES]:
        if current == output_stride:
            windows.append((1, rate))
            rate *= stride
        else:
            windows.append((stride, 1))
            current *= stride
    return windows


def run_in_torch(weights, image, windows, pad, pool):
    """A V1 of plain PyTorch functions: `pad(size, stride, rate)` gives (before, after) along one axis."""
    torch, _ = twins.import_torch()
    functional = torch.nn.functional

    def layer(x, path, stride=1, rate=1):
        kernel = weights[f"{path}.convolution.weight"]
        if kernel.shape[2] == 3:
            (top, bottom), (left, right) = (pad(size, stride, rate) for size in x.shape[2:])
            x = functional.pad(x, (left, right, top, bottom))
        groups = x.shape[1] // kernel.shape[1]
        x = functional.conv2d(x, kernel, stride=stride, dilation=rate, groups=groups)
        mean, variance, scale, shift = (
            weights[f"{path}.normalization.{role}"][:, None, None]
            for role in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(variance + 0.001) * scale + shift).clamp(0, 6)

    x = layer(image, "mobilenet_v1.conv_stem", *windows[0])
    for index, window in enumerate(windows[1:]):
        x = layer(x, f"mobilenet_v1.layer.{2 * index}", *window)
        x = layer(x, f"mobilenet_v1.layer.{2 * index + 1}")
    pooled = pool(x)
    kernel = weights["classifier.weight"][:, :, None, None]
    return x, pooled, functional.conv2d(pooled, kernel, weights["classifier.bias"])


def pad_as_tensorflow(size, stride, rate):
    total = max((-(-size // stride) - 1) * stride + 2 * rate + 1 - size, 0)
    return total // 2, total - total // 2


@pytest.mark.crosscheck
@pytest.mark.parametrize("output_stride", [32, 16, 8, 4])
@pytest.mark.parametrize("tf_padding", [True, False])
@pytest.mark.parametrize(("pool_size", "size"), [(None, (64, 51)), (7, (96, 131)), (2, (33, 80))])
def test_output_strides_and_fixed_pooling_against_pytorch(output_stride, tf_padding, pool_size, size):
    torch, _ = twins.import_torch()
    config = MobileNetV1Config(depth_multiplier=0.25, num_labels=6, output_stride=output_stride, tf_padding=tf_padding,
                               pool_size=pool_size)  # fmt: skip
    twin = twins.make_twin("MobileNetV1ForImageClassification", config.replace(output_stride=32, pool_size=None))
    state = twins.canonical_weights(twin.float64, "mobilenet_v1")
    ours = mm.MobileNetV1ForImageClassification.from_checkpoint(
        Checkpoint(config, twin.ours.state_dict(), "MobileNetV1ForImageClassification")
    )
    image = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)

    def pool(x):
        if pool_size is None:
            return x.mean((2, 3), keepdim=True)
        window = tuple(min(pool_size, side) for side in x.shape[2:])
        return torch.nn.functional.avg_pool2d(x, window, stride=2)

    last, pooled, logits = run_in_torch(
        {name: torch.from_numpy(values) for name, values in state.items()},
        torch.from_numpy(image.astype(np.float64)),
        slim_windows(output_stride),
        pad_as_tensorflow if tf_padding else lambda size, stride, rate: (rate, rate),
        pool,
    )
    found = ours(image, output_hidden_states=["last_hidden_state", "pooler"])
    is_pixel = pooled.shape[2:] == (1, 1)
    assert found.logits.shape == (logits.shape[:2] if is_pixel else logits.shape)
    for one, other in ((found.hidden_states[0], last), (found.hidden_states[1], pooled), (found.logits, logits)):
        other = other.numpy()  # noqa: PLW2901
        assert twins.rms(one.reshape(other.shape) - other) <= 2e-5 * twins.rms(other)
