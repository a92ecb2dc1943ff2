"""MobileNet V2 as a graph: the paper's table, TF-slim's names, strides and residuals; a fixed window in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import twins

import minimobile as mm
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.config import MobileNetV2Config
from minimobile.networks.mobilenet_v2 import build
from minimobile.operations.shapes import infer_shapes

# arXiv:1801.04381, Table 2: input size, channels in, t, c, n, s.
TABLE = [
    (112, 32, 1, 16, 1, 1),
    (112, 16, 6, 24, 2, 2),
    (56, 24, 6, 32, 3, 2),
    (28, 32, 6, 64, 4, 2),
    (14, 64, 6, 96, 3, 1),
    (14, 96, 6, 160, 3, 2),
    (7, 160, 6, 320, 1, 1),
]
# width -> stem, stem's output and blocks of each stage, last convolution, expanded channels of the stages
WIDTHS = {
    0.35: (16, (8, 8, 16, 24, 32, 56, 112), 1280, (48, 48, 96, 144, 192, 336)),
    0.5: (16, (8, 16, 16, 32, 48, 80, 160), 1280, (48, 96, 96, 192, 288, 480)),
    0.75: (24, (16, 24, 24, 48, 72, 120, 240), 1280, (96, 144, 144, 288, 432, 720)),
    1.0: (32, (16, 24, 32, 64, 96, 160, 320), 1280, (96, 144, 192, 384, 576, 960)),
    1.3: (40, (24, 32, 40, 80, 128, 208, 416), 1664, (144, 192, 240, 480, 768, 1248)),
    1.4: (48, (24, 32, 48, 88, 136, 224, 448), 1792, (144, 192, 288, 528, 816, 1344)),
}
FIRST_OF_STAGE = (0, 2, 5, 9, 12, 15)


def weight(graph, path):
    return graph.shapes[f"mobilenet_v2.{path}.convolution.weight"]


def windows(graph):
    nodes = [graph.node(f"layer.{i}.conv_3x3.convolution") for i in range(16)]
    return [(node.attributes["stride"], node.attributes["dilation"]) for node in nodes]


def residuals(graph):
    return [i for i in range(16) if any(node.name == f"layer.{i}" for node in graph.nodes)]


def test_the_paper_s_table_2():
    graph = build(MobileNetV2Config(num_labels=1000), head="classification")
    shapes = infer_shapes(graph, 224, 224)
    blocks = ["conv_stem", *(f"layer.{i}" for i in range(16))]
    rows, index = [], 0
    for row in TABLE:
        size, channels, t, c, n, s = row
        for block in range(n):
            name = blocks[index]
            first = f"{name}.expand_1x1" if index else f"{name}.conv_3x3"
            inputs = shapes[graph.node(f"{first}.convolution").inputs[0]]
            stride = graph.node(f"{name}.conv_3x3.convolution").attributes["stride"]
            expanded = shapes[f"{name}.conv_3x3"][0]
            assert expanded == t * inputs[0] and shapes[graph.resolve(name)][0] == c and stride == (1 if block else s)
            if block == 0:
                rows.append((inputs[1], inputs[0], t, c, n, s))
            index += 1
        assert (size, channels) == rows[-1][:2]
    assert rows == TABLE and index == 17
    assert shapes["conv_stem.first_conv"] == (32, 112, 112) and shapes["conv_1x1"] == (1280, 7, 7)


@pytest.mark.parametrize("width", WIDTHS)
def test_channels_of_the_published_widths(width):
    stem, stages, last, expanded = WIDTHS[width]
    graph = build(MobileNetV2Config(depth_multiplier=width))
    assert weight(graph, "conv_stem.first_conv")[0] == stem and weight(graph, "conv_1x1")[0] == last
    assert weight(graph, "conv_stem.reduce_1x1")[0] == stages[0]
    assert tuple(weight(graph, f"layer.{i}.reduce_1x1")[0] for i in FIRST_OF_STAGE) == stages[1:]
    followers = (0, 2, 5, 9, 12, 15)  # the first block of each stage expands the stage before it
    assert tuple(weight(graph, f"layer.{i}.expand_1x1")[0] for i in followers) == expanded


def test_the_last_convolution_of_narrow_networks():
    assert weight(build(MobileNetV2Config(depth_multiplier=0.5, finegrained_output=False)), "conv_1x1")[0] == 640
    assert weight(build(MobileNetV2Config(depth_multiplier=0.999)), "conv_1x1")[0] == 1280


def test_dm05_of_deeplab_has_twelve_channels():
    graph = build(MobileNetV2Config(depth_multiplier=0.5, depth_divisible_by=1))
    assert weight(graph, "layer.0.reduce_1x1")[0] == 12 and weight(graph, "layer.1.expand_1x1")[0] == 72


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [
        (32, {0: (2, 1), 2: (2, 1), 5: (2, 1), 12: (2, 1)}),
        (16, {0: (2, 1), 2: (2, 1), 5: (2, 1), 13: (1, 2), 14: (1, 2), 15: (1, 2)}),
        (8, {0: (2, 1), 2: (2, 1), **dict.fromkeys(range(6, 13), (1, 2)), **dict.fromkeys(range(13, 16), (1, 4))}),
        (4, {0: (2, 1), **dict.fromkeys(range(3, 6), (1, 2)), **dict.fromkeys(range(6, 13), (1, 4)),
             **dict.fromkeys(range(13, 16), (1, 8))}),
    ],
)  # fmt: skip
def test_output_strides(output_stride, expected):
    graph = build(MobileNetV2Config(output_stride=output_stride))
    assert windows(graph) == [expected.get(i, (1, 1)) for i in range(16)]
    assert infer_shapes(graph, 224, 225)["conv_1x1"][1:] == (224 // output_stride, -(-225 // output_stride))


def test_residuals_follow_the_applied_stride_and_the_channels():
    usual = [1, 3, 4, 6, 7, 8, 10, 11, 13, 14]
    assert all(residuals(build(MobileNetV2Config(depth_multiplier=width))) == usual for width in WIDTHS)
    assert residuals(build(MobileNetV2Config(depth_multiplier=0.75, output_stride=4))) == sorted([2, *usual])
    assert residuals(build(MobileNetV2Config(depth_multiplier=0.35, output_stride=2))) == sorted([0, *usual])
    tiny = residuals(build(MobileNetV2Config(depth_multiplier=0.026)))
    assert {9, 15} <= set(tiny) and not {0, 2, 5, 12} & set(tiny)
    graph = build(MobileNetV2Config())
    assert graph.node("layer.1").inputs == ("layer.0.reduce_1x1", "layer.1.reduce_1x1")


def test_names_of_slim():
    graph = build(MobileNetV2Config(), head="classification")
    expected = {
        "layer_1": "conv_stem.first_conv", "layer_2": "conv_stem.reduce_1x1", "layer_2/output": "conv_stem.reduce_1x1",
        "layer_2/depthwise_output": "conv_stem.conv_3x3", "layer_3": "layer.0.reduce_1x1", "layer_4": "layer.1",
        "layer_15/expansion_output": "layer.12.expand_1x1", "layer_14/depthwise_output": "layer.11.conv_3x3",
        "layer_18/output": "layer.15.reduce_1x1", "layer_19": "conv_1x1", "embedding": "conv_1x1",
        "last_hidden_state": "conv_1x1", "global_pool": "pooler", "pooler_output": "pooler", "Logits": "classifier",
        "logits": "classifier", "conv_stem": "conv_stem.reduce_1x1", "layer.0": "layer.0.reduce_1x1",
        "mobilenet_v2.layer.1": "layer.1", "layer.5.reduce_1x1.normalization": "layer.5.reduce_1x1",
    }  # fmt: skip
    assert {name: graph.resolve(name) for name in expected} == expected
    assert "layer_2/expansion_output" not in graph.aliases
    plain = build(MobileNetV2Config(first_layer_is_expansion=False))
    assert plain.resolve("layer_2/expansion_output") == "conv_stem.expand_1x1"


def test_hidden_states_are_the_16_blocks():
    graph = build(MobileNetV2Config())
    assert graph.hidden_states == tuple(graph.resolve(f"layer.{i}") for i in range(16))
    assert graph.outputs == ("conv_1x1", "pooler") and "conv_1x1" not in graph.hidden_states


def test_first_layer_is_expansion():
    graph = build(MobileNetV2Config(first_layer_is_expansion=False))
    assert weight(graph, "conv_stem.expand_1x1") == (32, 32, 1, 1)
    assert "mobilenet_v2.conv_stem.expand_1x1.convolution.weight" not in build(MobileNetV2Config()).shapes


def test_expand_ratio_one_keeps_the_expansion():
    graph = build(MobileNetV2Config(expand_ratio=1.0))
    assert weight(graph, "layer.0.expand_1x1") == (16, 16, 1, 1)


def test_reduce_layers_have_no_activation():
    graph = build(MobileNetV2Config())
    assert {node.op for node in graph.nodes if node.name.endswith("reduce_1x1")} == {"batch_norm"}


def test_fixed_pooling_has_stride_one():
    pooler = build(MobileNetV2Config(pool_size=7)).node("pooler")
    assert (pooler.op, pooler.attributes) == ("average_pool2d", {"kernel_size": 7, "stride": 1})


@pytest.mark.crosscheck
@pytest.mark.parametrize("head", ["none", "classification"])
@pytest.mark.parametrize("options", [
    {}, {"depth_multiplier": 0.27, "first_layer_is_expansion": False}, {"depth_multiplier": 0.62, "min_depth": 1},
    {"depth_divisible_by": 1, "depth_multiplier": 0.35, "expand_ratio": 3.3, "finegrained_output": False},
    {"depth_multiplier": 1.3, "num_channels": 4, "num_labels": 0},
])  # fmt: skip
def test_names_and_shapes_of_transformers(head, options):
    twins.import_torch()
    import transformers

    config = MobileNetV2Config(**options)
    name = "MobileNetV2Model" if head == "none" else "MobileNetV2ForImageClassification"
    theirs = twins.canonical_weights(getattr(transformers, name)(twins.twin_config(config)), "mobilenet_v2")
    assert {name: values.shape for name, values in theirs.items()} == dict(build(config, head).shapes)


@pytest.mark.crosscheck
@pytest.mark.parametrize(("pool_size", "size"), [(7, (224, 257)), (7, (96, 260)), (3, (64, 120)), (9, (300, 33))])
def test_fixed_pooling_against_pytorch(pool_size, size):
    """transformers' feature map, then PyTorch's window and a 1x1 convolution: what a frozen graph of TF-slim does."""
    torch, _ = twins.import_torch()
    config = MobileNetV2Config(depth_multiplier=0.35, num_labels=6)
    twin = twins.make_twin("MobileNetV2ForImageClassification", config)
    ours = mm.MobileNetV2ForImageClassification.from_checkpoint(
        Checkpoint(config.replace(pool_size=pool_size), twin.ours.state_dict(), "MobileNetV2ForImageClassification")
    )
    image = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
    with torch.no_grad():
        x = twin.float64.mobilenet_v2(torch.from_numpy(image.astype(np.float64))).last_hidden_state
        window = tuple(min(pool_size, side) for side in x.shape[2:])
        pooled = torch.nn.functional.avg_pool2d(x, window, stride=1)
        linear = twin.float64.classifier
        logits = torch.nn.functional.conv2d(pooled, linear.weight[:, :, None, None], linear.bias).numpy()
    found = ours(image)
    assert found.logits.shape == (logits.shape[:2] if logits.shape[2:] == (1, 1) else logits.shape)
    assert twins.rms(found.logits.reshape(logits.shape) - logits) <= 2e-5 * twins.rms(logits)
