"""A file's own layers become our network: the same numbers out, or a refusal that names the layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from spelling import random_weights, replace, spell

from minimobile.errors import FormatError
from minimobile.execution.definitions import run_reference
from minimobile.formats.dialects import DIALECTS
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.matching.other_networks import naming_others
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import Node
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.table import layout_weights

V1 = "MobileNetV1ForImageClassification"
V2 = "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
TINY = {"depth_multiplier": 0.1, "num_labels": 5}
SLIM = DIALECTS["slim"]


def build(architecture, **fields):
    config = (MobileNetV1Config if "V1" in architecture else MobileNetV2Config)(**{**TINY, **fields})
    graph = build_graph(config, architecture)
    return config, graph, random_weights(graph)


def match(layers, size=(32, 32), dialect=SLIM, **options):
    return match_network(layers, dialect, "here", image_size=size, **options)


def assert_same_network(checkpoint, graph, weights):
    """The same graph with the same weights gives the same bits, whatever the picture."""
    assert keep_needed(build_graph(checkpoint.config, checkpoint.architecture), graph.outputs) == keep_needed(
        graph, graph.outputs
    )
    assert all(np.array_equal(weights[name], values) for name, values in checkpoint.weights.items())


def assert_equal_outputs(checkpoint, graph, weights, size, tolerance=0.0):
    x = np.random.default_rng(1).standard_normal((1, *size, graph.input_channels)).astype(np.float32)
    expected = run_reference(graph, weights, x, graph.outputs)
    theirs = build_graph(checkpoint.config, checkpoint.architecture)
    found = run_reference(theirs, checkpoint.weights, x, theirs.outputs)
    for name, values in expected.items():
        assert np.abs(values).max() > 1e-3
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance * np.abs(values).max())


@pytest.mark.parametrize("architecture", [V1, V2, DEEPLAB, "MobileNetV1Model", "MobileNetV2Model"])
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_a_network_comes_back_from_its_layers(architecture, output_stride):
    _, graph, weights = build(architecture, output_stride=output_stride)
    tail = () if architecture.endswith("Model") else ("reshape", "softmax")
    checkpoint = match(spell(graph, weights, tail=tail))
    assert checkpoint.architecture == architecture
    assert checkpoint.config.output_stride == output_stride
    assert checkpoint.config.layer_norm_eps == 0.001
    needed = {name for node in graph.nodes for name in node.weights.values()}
    if architecture == DEEPLAB:
        needed = {name for name in needed if "conv_1x1" not in name}
    assert set(checkpoint.weights) >= needed
    assert_same_network(checkpoint, graph, weights)


VARIANTS = {
    "V1 0.35": (V1, {"depth_multiplier": 0.35}, {}),
    "V2 0.35": (V2, {"depth_multiplier": 0.35}, {}),
    "V2 0.5": (V2, {"depth_multiplier": 0.5, "finegrained_output": False}, {}),
    "DeepLab 0.5 by 1": (DEEPLAB, {"depth_multiplier": 0.5, "depth_divisible_by": 1, "output_stride": 8}, {}),
    "one channel": (V1, {"num_channels": 1}, {}),
    "relu": (V2, {"hidden_act": "relu"}, {}),
    "epsilon": (V1, {"layer_norm_eps": 1e-5}, {}),
    "no epsilon": (V1, {"layer_norm_eps": 0.0}, {}),
    "expansion": (V2, {"first_layer_is_expansion": False}, {}),
    "symmetric V1": (V1, {"tf_padding": False}, {}),
    "symmetric V2": (V2, {"tf_padding": False, "output_stride": 8}, {"pads": "all"}),
    "bottom right": (V1, {"bottom_right_padding": "depthwise"}, {}),
    "bottom right all": (V1, {"bottom_right_padding": "all"}, {"pads": "strided"}),
    "dense": (V2, {}, {"dense": True}),
    "fixed pool": (V1, {"pool_size": 2}, {"size": (96, 65)}),
    "fixed pool V2": (V2, {"pool_size": 2}, {"size": (96, 96)}),
    "blocks": (V2, {"output_stride": 8}, {"blocks": True, "size": (33, 41)}),
    "padded blocks": (V2, {"tf_padding": False, "output_stride": 8}, {"pads": "all", "blocks": True, "size": (33, 41)}),
    "blocks DeepLab": (DEEPLAB, {"output_stride": 8}, {"blocks": True, "size": (33, 33), "tail": ("resize_bilinear",)}),
    "argmax": (DEEPLAB, {"output_stride": 16}, {"tail": ("resize_bilinear", "argmax")}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_keep_their_fields_and_numbers(variant):
    architecture, fields, options = VARIANTS[variant]
    _, graph, weights = build(architecture, **fields)
    size = options.get("size", (64, 64))
    checkpoint = match(spell(graph, weights, **{**options, "size": size}), size)
    assert {name: getattr(checkpoint.config, name) for name in fields} == fields
    assert_same_network(checkpoint, graph, weights)


@pytest.mark.parametrize("architecture", [V1, V2, DEEPLAB])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 2e-3])
def test_folding_gives_back_a_folded_file_bit_for_bit(architecture, epsilon):
    _, graph, weights = build(architecture)
    layers = spell(graph, weights, folded=True)
    dialect = dataclasses.replace(SLIM, epsilon=epsilon)
    checkpoint = match(layers, dialect=dialect)
    folded = {layer.tensor.partition(":")[0]: layer for layer in layers}
    by_canonical = {ours: theirs for theirs, ours in checkpoint.mapped.items()}
    compared = 0
    for node in fold_batch_norm(build_graph(checkpoint.config, architecture)).nodes:
        if "weight" in node.weights and node.weights["weight"] in by_canonical:
            weight, bias = layout_weights(node, checkpoint.weights, np.float32)
            theirs = folded[by_canonical[node.weights["weight"]].partition("/")[0]].arrays
            expected = theirs["weight"][:, 0].transpose(1, 2, 0) if node.op == "depthwise_conv2d" else theirs["weight"]
            expected = expected.transpose(0, 2, 3, 1) if node.op == "conv2d" else expected
            assert weight.tobytes() == expected.tobytes()
            assert bias.tobytes() == (theirs["bias"] + np.float32(0)).tobytes()
            compared += 1
    assert compared == {V1: 28, V2: 53, DEEPLAB: 55}[architecture]
    if epsilon == 1e-3:
        assert_equal_outputs(checkpoint, graph, weights, (9, 13))


def test_a_bias_before_batch_norm_goes_into_the_mean():
    _, graph, weights = build(V1)
    assert_equal_outputs(match(spell(graph, weights, biased=True)), graph, weights, (9, 13), tolerance=1e-5)


def test_v2_with_zeros_chosen_for_its_size_is_same():
    _, graph, weights = build(V2)
    for size in ((32, 32), (37, 45), (50, 33)):
        checkpoint = match(spell(graph, weights, pads="strided", size=size), size)
        assert (checkpoint.config.tf_padding, checkpoint.config.bottom_right_padding) == (True, None)
    with pytest.raises(FormatError, match=r"'op_\d+': expected padding"):
        match(spell(graph, weights, pads="strided", size=(50, 33)), None)


def test_another_epsilon_in_the_head_of_deeplab_goes_into_its_variance():
    _, graph, weights = build(DEEPLAB)
    other = {name: values - 0.01 if "head" in name and "var" in name else values for name, values in weights.items()}
    layers = spell(graph, other)
    for layer in layers:
        if layer.op == "batch_norm" and layer.attributes["epsilon"] == np.float32(1e-5):
            layers = replace(layers, layer.name, attributes={"epsilon": 0.01001})
    assert_equal_outputs(match(layers), graph, weights, (9, 13), tolerance=1e-5)


def test_endpoints_and_mapped_name_the_files_own_tensors():
    _, graph, weights = build(V2)
    layers = spell(graph, weights)
    checkpoint = match(layers)
    assert checkpoint.endpoints["conv_stem.first_conv"] == "op_2:0"  # convolution, batch norm, activation
    assert checkpoint.endpoints["classifier"] == f"{layers[-2].name}:0"
    assert checkpoint.mapped["op_0/weight"] == "mobilenet_v2.conv_stem.first_conv.convolution.weight"
    assert checkpoint.mapped["op_1/variance"] == "mobilenet_v2.conv_stem.first_conv.normalization.running_var"
    assert set(checkpoint.mapped.values()) == set(graph.shapes)
    assert checkpoint.ignored == {layers[-1].name: "the model gives logits"}
    ends = {graph.resolve(name) for name in (f"layer.{index}" for index in range(16))}
    assert ends | {"layer.3.expand_1x1", "layer.3.conv_3x3", "conv_1x1", "pooler"} <= set(checkpoint.endpoints)


def test_sigmoid_makes_the_classes_independent():
    _, graph, weights = build(V1)
    assert match(spell(graph, weights)).config.problem_type is None
    assert match(spell(graph, weights, tail=("sigmoid",))).config.problem_type == "multi_label_classification"


def test_a_scaling_of_the_picture_becomes_the_processors():
    _, graph, weights = build(V1)

    def scaled(*pairs):
        value, first = PICTURE, []
        for index, (scale, offset) in enumerate(pairs):
            first.append(Layer(f"scaling_{index}", "rescale", (value,), {}, {"scale": scale, "offset": offset}))
            value = first[-1].name
        return match(first + replace(spell(graph, weights), "op_0", inputs=(value,)))

    usual = match(spell(graph, weights))
    same = scaled((np.float32(1 / 127.5), 0.0), (1.0, -1.0))
    assert same.processor == usual.processor
    assert same.provenance["input_scaling"].startswith("0.00784314 * x -1 of pixels up to 255")
    imagenet = scaled((1 / 255, 0.0), (1 / np.array([0.229, 0.224, 0.225]), [-2.1179, -2.0357, -1.8044]))
    assert imagenet.processor["image_std"] == [0.229, 0.224, 0.225]
    np.testing.assert_allclose(imagenet.processor["image_mean"], [0.485, 0.456, 0.406], rtol=1e-4)
    assert scaled((2.0, -1.0)).processor == usual.processor  # pixels from 0 to 1
    with pytest.raises(FormatError, match="'scaling_0': expected a finite scale above zero"):
        scaled((0.0, 1.0))
    with pytest.raises(FormatError, match="scaled by 1 or 3 numbers"):
        scaled((np.ones(2), 0.0))


def test_a_config_given_stands_in_for_the_one_found():
    config, graph, weights = build(V1)
    given = config.replace(output_stride=8, layer_norm_eps=0.5)
    checkpoint = match(spell(graph, weights, folded=True), config=given)
    assert checkpoint.config == given
    assert_equal_outputs(
        dataclasses.replace(checkpoint, config=config.replace(layer_norm_eps=0.5)), graph, weights, (32, 32)
    )


def test_deeplab_tells_its_size_by_the_window_of_its_pool():
    _, graph, weights = build(DEEPLAB, output_stride=8)
    layers = spell(graph, weights, size=(65, 65))
    (pool,) = (layer for layer in layers if layer.op == "average_pool2d")
    fixed = replace(layers, pool.name, attributes={"kernel_size": (9, 9)})
    assert match(fixed, None).config.image_size == 65
    with pytest.raises(FormatError, match=rf"'{pool.name}': expected the mean of the whole map of \(5, 5\)"):
        match(fixed, (33, 33))


def _insert(layers, after, op, **attributes):
    """Put a layer behind the layer `after`, before all who read that."""
    new = Layer("inserted", op, (after,), {}, attributes)
    place = next(index for index, layer in enumerate(layers) if layer.name == after) + 1
    rest = [
        dataclasses.replace(layer, inputs=tuple("inserted" if name == after else name for name in layer.inputs))
        for layer in layers[place:]
    ]
    return [*layers[:place], new, *rest]


def _nth(layers, op, index):
    return [layer for layer in layers if layer.op == op][index]


def _begin_blocks(layers):
    first = Layer("begin", "space_to_batch", (PICTURE,), {}, {"block": (2, 2), "padding": ((1, 1), (1, 1))})
    return [first, *replace(layers, "op_0", inputs=("begin",), attributes={"stride": 1, "padding": "VALID"})]


REFUSALS = {
    "hard swish": (V2, lambda x: replace(x, _nth(x, "activation", 4).name, attributes={"function": "hard_swish"}),
                   "expected activation relu6 .*found hard_swish"),
    "hard swish at first": (V2, lambda x: replace(x, "op_2", attributes={"function": "hard_swish"}),
                            "'op_0': expected relu6, relu or a curve after it, found hard_swish"),
    "activation of a projection": (V2, lambda x: _insert(x, _nth(x, "batch_norm", 5).name, "activation",
                                                         function="relu6"), "expected activation none .*found relu6"),
    "squeeze and excite": (V2, lambda x: _insert(x, _nth(x, "activation", 3).name, "other", kind="MUL"),
                           "'inserted': expected a 1x1 convolution .*reduce_1x1.*found MUL"),
    "5x5": (V1, lambda x: replace(x, _nth(x, "depthwise_conv2d", 3).name,
                                  arrays={"weight": np.ones((16, 1, 5, 5), np.float32)}),
            r"expected a 3x3 depthwise convolution here \(layer.6\).*found 5x5 depthwise"),
    "stride": (V1, lambda x: replace(x, _nth(x, "depthwise_conv2d", 1).name, attributes={"stride": 1}),
               "expected stride 2"),
    "stem": (V1, lambda x: replace(x, "op_0", attributes={"stride": 1}), "'op_0': expected stride 2"),
    "dilation": (V2, lambda x: replace(x, _nth(x, "depthwise_conv2d", 7).name, attributes={"dilation": 2}),
                 "expected dilation 1"),
    "pointwise stride": (V1, lambda x: replace(x, _nth(x, "conv2d", 3).name, attributes={"stride": 3}),
                         "expected stride 1"),
    "epsilon": (V1, lambda x: replace(x, _nth(x, "batch_norm", 9).name, attributes={"epsilon": 0.01}),
                "expected the epsilon 0.001 .*found 0.01"),
    "endless epsilon": (DEEPLAB, lambda x: replace(x, _nth(x, "batch_norm", -1).name, attributes={"epsilon": 1e99}),
                        "expected an epsilon of zero or more, found inf"),
    "channels": (V1, lambda x: replace(x, _nth(x, "conv2d", 4).name,
                                       arrays={"weight": np.ones((25, 13, 1, 1), np.float32)}),
                 r"op_\d+/weight \(mobilenet_v1.layer.\d+.convolution.weight\): expected \(25, "),
    "padding": (V1, lambda x: replace(x, _nth(x, "depthwise_conv2d", 1).name, attributes={"padding": "VALID"}),
                "expected padding SAME .*found VALID"),
    "wrong residual": (V2, lambda x: replace(x, _nth(x, "add", 0).name,
                                             inputs=(_nth(x, "add", 0).inputs[1], _nth(x, "activation", 1).name)),
                       "expected"),
    "no head": (V2, lambda x: x[: next(i for i, layer in enumerate(x) if layer.op == "average_pool2d") - 3],
                "found the end of the network"),
    "something before the pool": (V1, lambda x: _insert(x, _nth(x, "average_pool2d", 0).inputs[0], "other", kind="MUL"),
                                  r"'inserted': expected an average pool here \(pooler\).*found MUL"),
    "two branches": (V1, lambda x: [*x, Layer("extra", "resize_bilinear", (x[-2].name,))],
                     "'extra': expected nothing beside and after"),
    "temperature": (V1, lambda x: _insert(x, x[-2].name, "rescale", scale=2.0, offset=0.0),
                    "'inserted': expected nothing"),
    "order of concatenation": (DEEPLAB, lambda x: replace(x, _nth(x, "concatenate", 0).name,
                                                          inputs=_nth(x, "concatenate", 0).inputs[::-1]),
                               r"\(concatenation\): expected the inputs"),
    "relu6 in the head": (DEEPLAB, lambda x: replace(x, _nth(x, "activation", -2).name,
                                                     attributes={"function": "relu6"}), "expected activation relu "),
    "blocks without end": (V2, _begin_blocks, "expected a batch_to_space after it"),
    "an input from nowhere": (V1, lambda x: replace(x, "op_3", inputs=("nowhere",)), "'nowhere' that is not"),
    "ranks": (V1, lambda x: replace(x, "op_0", arrays={"weight": np.ones((8, 3))}), "'op_0' .* expected a weight of 4"),
    "means": (V1, lambda x: replace(x, "op_1", arrays={"mean": np.ones(8)}), "'op_1' .*expected mean and variance"),
    "size of batch norm": (V1, lambda x: replace(x, "op_1", arrays={"mean": np.ones(9), "variance": np.ones(9)}),
                           "'op_1': expected a 3x3 depthwise.*found batch_norm"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_mobilenet_is_refused_by_the_files_own_name(case):
    architecture, spoil, message = REFUSALS[case]
    _, graph, weights = build(architecture)
    with pytest.raises(FormatError, match=f"^here: .*{message}") as caught:
        match(spoil(spell(graph, weights)))
    assert "\n" not in str(caught.value)


def test_a_missing_block_or_sum_is_named():
    _, graph, weights = build(V1)
    layers = spell(graph, weights)
    start = next(index for index, layer in enumerate(layers) if layer is _nth(layers, "depthwise_conv2d", 12))
    before = layers[start - 1].name
    cut = replace([*layers[:start], *layers[start + 6 :]], layers[start + 6].name, inputs=(before,))
    with pytest.raises(
        FormatError, match=rf"'{layers[start + 6].name}': expected a 3x3 depthwise .*found average pool"
    ):
        match(cut)

    _, graph, weights = build(V2)
    layers = spell(graph, weights)
    add = _nth(layers, "add", 2)
    without = [
        dataclasses.replace(layer, inputs=tuple(add.inputs[1] if name == add.name else name for name in layer.inputs))
        for layer in layers
        if layer is not add
    ]
    with pytest.raises(FormatError, match=r"expected a sum with its block's input after it \(layer.\d+\), found none"):
        match(without)


def test_a_sum_behind_v2_s_first_block_is_refused():
    """As all but transformers have it where the block has as many channels behind it as before it."""
    _, graph, weights = build(V2)
    ends = ("conv_stem.first_conv", "conv_stem.reduce_1x1")
    place = [node.name for node in graph.nodes].index(ends[1]) + 1
    after = [
        dataclasses.replace(node, inputs=tuple("conv_stem" if name == ends[1] else name for name in node.inputs))
        for node in graph.nodes[place:]
    ]
    nodes = (*graph.nodes[:place], Node("conv_stem", "add", ends, {}, {}), *after)
    layers = spell(dataclasses.replace(graph, nodes=nodes), weights)
    with pytest.raises(FormatError, match=r"^here: layer 'op_[0-9]+': expected no sum behind the first block"):
        match(layers)


def test_nothing_at_all_is_refused():
    with pytest.raises(FormatError, match=r"expected a 3x3 convolution .*after the picture"):
        match([])


@pytest.mark.parametrize(
    ("architecture", "count", "index", "name"),
    [(V1, 1000, 0, "tench, Tinca tinca"), (V2, 1001, 0, "background"), (DEEPLAB, 21, 15, "person")],
)
def test_classes_of_known_counts_have_their_names(architecture, count, index, name):
    config, graph, weights = build(architecture, num_labels=count)
    layers = spell(graph, weights)
    assert match(layers).config.labels[index] == name
    assert match(layers, config=config).config.labels[index] == f"LABEL_{index}", "a config that is given is kept"


OTHERS = {
    "BoxPredictor_3/ClassPredictor/BiasAdd": "an SSD detector",
    "MobilenetV1/displacement_fwd_2/BiasAdd": "a pose network",
    "MobilenetV3/expanded_conv_4/depthwise": "a MobileNet V3",
    "resnet50/conv5_block3_out": "a ResNet",
    "efficientnet-lite0/stem": "an EfficientNet",
    "MobilenetV2/expanded_conv_4/depthwise": None,
    "MobilenetV1/Logits/Conv2d_1c_1x1": None,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_refusal_says_which_other_network_a_file_holds(name: str) -> None:
    with pytest.raises(FormatError) as caught, naming_others(["input", name]):
        raise FormatError("x: expected a 1x1 convolution")
    named = f"; by its names the file holds {OTHERS[name]}" if OTHERS[name] else ""
    assert str(caught.value) == f"x: expected a 1x1 convolution{named}"


def test_a_convolution_of_a_constant_is_refused() -> None:
    _, graph, weights = build(V1)
    layers = spell(graph, weights, folded=True)
    stem = next(layer for layer in layers if layer.op == "conv2d")
    with pytest.raises(FormatError, match="expected an input that is computed, found a constant"):
        match([dataclasses.replace(stem, inputs=()), *(layer for layer in layers if layer is not stem)])
