"""A trace is the run itself, layer by layer; a value written out as its sum is the engine's value, to the bit."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cases import one_node_graph, open_runner, random_image, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

import minimobile
from minimobile.costs.profile import profile
from minimobile.errors import InputError, UnknownLayerError
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.tracing.explain import explain
from minimobile.tracing.explanation import Explanation, bits
from minimobile.tracing.trace import choose_rows

NETWORKS = {
    "v1": (mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25, pool_size=2), "classification"), (65, 50)),
    "v2": (mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35), "classification"), (64, 47)),
    "v2 silu": (
        mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35, hidden_act="silu", tf_padding=False)),
        (33, 32),
    ),
    "v2 unfolded": (mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35, folds_batch_norm=False)), (40, 33)),
    "deeplab": (deeplab.build(MobileNetV2Config(depth_multiplier=0.25, output_stride=8, num_labels=5)), (48, 33)),
}
Explain = Callable[[str, tuple[int, int, int]], Explanation]


@pytest.fixture(scope="module")
def explainers() -> dict[str, Explain]:
    """Return, for each network, what explains a value of it."""

    def make(graph: Graph, size: tuple[int, int]) -> Explain:
        weights = random_weights(graph)
        engine = open_runner(graph, weights, num_threads=1)
        image = random_image((1, *size, graph.input_channels))
        return lambda layer, position: explain(graph, weights, engine, image, layer, position)

    return {name: make(graph, size) for name, (graph, size) in NETWORKS.items()}


@settings(max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("name", NETWORKS)
def test_the_written_out_value_is_the_engine_s(name: str, data: st.DataObject, explainers: dict[str, Explain]) -> None:
    graph, size = NETWORKS[name]
    node = data.draw(st.sampled_from([node.name for node in graph.nodes]))
    channels, height, width = shapes(graph, size)[node]
    position = tuple(data.draw(st.integers(0, count - 1)) for count in (height, width, channels))
    explanation = explainers[name](node, position)
    assert explanation.agrees, f"{name}: {node} at {position}: {explanation.value!r}, not {explanation.computed!r}"


CHOSEN = [
    ("v1", "Conv2d_0", "conv2d", (32, 24, 3)),
    ("v1", "layer.2", "depthwise_conv2d", (0, 0, 1)),
    ("v1", "Conv2d_13_pointwise", "pointwise_conv2d", (1, 0, 255)),
    ("v1", "pooler", "average_pool2d", (0, 0, 100)),
    ("v1", "classifier", "pointwise_conv2d", (0, 0, 1)),
    ("v2", "layer_4", "pointwise_conv2d", (3, 2, 7)),  # layer.1: a projection with residual
    ("v2", "layer.5.reduce_1x1", "pointwise_conv2d", (1, 1, 0)),
    ("v2", "layer.5.conv_3x3.convolution", "depthwise_conv2d", (0, 2, 9)),
    ("v2", "pooler", "global_average_pool2d", (0, 0, 1279)),
    ("v2 silu", "layer.0.expand_1x1", "pointwise_conv2d", (5, 5, 5)),
    ("deeplab", "segmentation_head.upsample", "resize_bilinear", (2, 3, 200)),
    ("deeplab", "segmentation_head.concat", "concatenate", (2, 3, 255)),
    ("deeplab", "segmentation_head.concat", "concatenate", (2, 3, 256)),
    ("deeplab", "logits", "pointwise_conv2d", (5, 4, 4)),
]


@pytest.mark.parametrize(("network", "layer", "operation", "position"), CHOSEN)
def test_one_of_each_kind(
    network: str, layer: str, operation: str, position: tuple[int, int, int], explainers: dict[str, Explain]
) -> None:
    explanation = explainers[network](layer, position)
    assert explanation.agrees
    assert explanation.operation == operation
    document = json.loads(json.dumps(explanation.to_dict()))
    assert document["agrees"] is True
    assert document["value"]["bits"] == bits(explanation.computed)
    assert len(document["terms"]) == len(explanation.terms)


def test_every_step_of_the_sum_is_rounded_as_exact_arithmetic_says(explainers: dict[str, Explain]) -> None:
    """Fused multiply-adds and sums redone in rational numbers, rounded to the nearest float32, ties to even."""
    explanation = explainers["v2"]("layer.13", (1, 1, 20))
    assert [stage.name for stage in explanation.stages] == [
        "block 0", "block 1", "block 2", "bias", "residual layer.12.reduce_1x1",
    ]  # fmt: skip
    assert len(explanation.terms) == 336  # the expanded width: blocks of 128, 128 and 80
    sums = []
    for first in (0, 128, 256):
        block = Fraction(0)
        for term in explanation.terms[first : first + 128]:
            exact = Fraction(float(term.pixel)) * Fraction(float(term.weight))
            assert exact == Fraction(float(term.product))
            block = nearest_float32(exact + block)
            assert block == Fraction(float(term.running))
        sums.append(block)
    total = sums[0]
    for number, block in enumerate(sums[1:], 1):
        total = nearest_float32(total + block)
        assert total == Fraction(float(explanation.stages[number].value))
    for stage in explanation.stages[3:]:
        total = nearest_float32(total + Fraction(float(stage.operand)))
        assert total == Fraction(float(stage.value))
    assert float(total) == explanation.computed


@pytest.mark.parametrize("layer", ["conv_stem.first_conv", "layer.3.conv_3x3", "layer.13"])
def test_a_sum_that_is_not_folded_is_scaled_and_shifted_with_one_rounding(
    layer: str, explainers: dict[str, Explain]
) -> None:
    explanation = explainers["v2 unfolded"](layer, (1, 1, 4))
    assert explanation.agrees and explanation.unfolded is None  # the terms are the file's own
    total, scaled, biased = explanation.stages[[stage.name for stage in explanation.stages].index("bias") - 2 :][:3]
    assert scaled.name == "times batch norm's factor" and scaled.operand is not None and biased.operand is not None
    exact = Fraction(float(total.value)) * Fraction(float(scaled.operand))
    assert Fraction(float(scaled.value)) == exact
    assert Fraction(float(biased.value)) == nearest_float32(exact + Fraction(float(biased.operand)))


def test_taps_outside_the_image_are_named_and_skipped(explainers: dict[str, Explain]) -> None:
    terms = explainers["v2"]("conv_stem.first_conv", (31, 23, 0)).terms  # 64x47: padding 0, 1 and 1, 1
    outside = [term for term in terms if term.pixel is None]
    assert [(term.tap, term.position) for term in terms[:4]] == [
        ((0, 0), (62, 45, 0)), ((0, 0), (62, 45, 1)), ((0, 0), (62, 45, 2)), ((0, 1), (62, 46, 0)),
    ]  # fmt: skip
    assert {term.position[:2] for term in outside} == {(62, 47), (63, 47), (64, 45), (64, 46), (64, 47)}
    assert len(outside) == 15
    assert all(term.product is None and term.weight is not None for term in outside)
    for before, term in itertools.pairwise(terms):
        assert term.pixel is not None or bits(term.running) == bits(before.running)


@pytest.mark.parametrize("layer", ["conv_stem.first_conv", "layer.3.conv_3x3", "layer.14.reduce_1x1"])
def test_before_folding_stands_the_convolution_and_batch_norm_s_formula(
    layer: str, explainers: dict[str, Explain]
) -> None:
    graph, _ = NETWORKS["v2"]
    weights = random_weights(graph)
    unfolded = explainers["v2"](layer, (1, 1, 4)).unfolded
    assert unfolded is not None
    node = "convolution" if f"{layer}.convolution" in {node.name for node in graph.nodes} else ""
    assert bits(unfolded.convolved) == bits(explainers["v2"](f"{layer}.{node}", (1, 1, 4)).computed)
    path = f"mobilenet_v2.{layer}"
    weight = weights[f"{path}.convolution.weight"][4]
    plain = weight.transpose(1, 2, 0).ravel()  # (C_in, K_h, K_w) -> ky, kx, ci
    assert [term.weight for term in unfolded.terms] == plain.tolist()
    statistics = [
        weights[f"{path}.normalization.{name}"][4] for name in ("running_mean", "weight", "running_var", "bias")
    ]
    assert [unfolded.mean, unfolded.scale, unfolded.variance, unfolded.shift] == statistics
    mean, scale, variance, shift = map(float, statistics)
    exact = (float(unfolded.convolved) - mean) * scale / math.sqrt(variance + unfolded.epsilon) + shift
    assert unfolded.normalized == pytest.approx(exact, rel=1e-7)
    assert unfolded.folded == pytest.approx(exact, rel=1e-4)
    spacing = float(np.spacing(np.abs(unfolded.folded)))
    assert unfolded.ulps == pytest.approx(abs(float(unfolded.folded) - float(unfolded.normalized)) / spacing, abs=1)


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_resize_between_maps_of_several_pixels(align_corners: bool) -> None:
    small = Node("small", "average_pool2d", (INPUT,), {"kernel_size": 3, "stride": 2})
    large = Node("large", "resize_bilinear", ("small", INPUT), {"align_corners": align_corners})
    graph = Graph((small, large), 2, ("large",), {})
    image = random_image((1, 9, 11, 2))
    engine = open_runner(graph, {}, num_threads=1)
    for row in range(9):
        for column in range(11):
            assert explain(graph, {}, engine, image, "large", (row, column, 1)).agrees


def test_a_skipped_tap_is_not_a_zero() -> None:
    """Infinity times a padded zero would be NaN; and a chain that begins at zero ends at +0, never at -0."""
    graph = one_node_graph("conv2d", 1, 1, kernel_size=3, stride=1, dilation=1, padding="SAME")
    weights = {name: np.full(shape, -np.inf, np.float32) for name, shape in graph.shapes.items()}
    weights.update({name: np.zeros_like(w) for name, w in weights.items() if name.endswith("bias")})
    image = np.ones((1, 2, 2, 1), np.float32)
    engine = open_runner(graph, weights, num_threads=1)
    explanation = explain(graph, weights, engine, image, graph.outputs[0], (0, 0, 0))
    assert explanation.agrees
    assert explanation.value == -np.inf
    weights = {name: np.zeros_like(w) for name, w in weights.items()}
    engine = open_runner(graph, weights, num_threads=1)
    assert bits(explain(graph, weights, engine, -image, graph.outputs[0], (0, 0, 0)).value) == "00000000"


@pytest.mark.parametrize(
    ("position", "got"),
    [
        ((0, 0, 256), "got (0, 0, 256)"), ((4, 0, 0), "got (4, 0, 0)"), ((0, -1, 0), "got (0, -1, 0)"),
        ((0, 0), "got (0, 0)"), ((0, 0, 0.5), "got (0, 0, 0.5)"), (7, "got 7"),
    ],
)  # fmt: skip
def test_positions_that_are_none(position: object, got: str, classifier_model: minimobile.MobileNetV1Model) -> None:
    with pytest.raises(InputError) as error:
        classifier_model.explain(random_image((1, 3, 96, 64)), "layer.25", position)  # type: ignore[arg-type]
    assert str(error.value) == f"position: expected (row, column, channel) of layer.25, below (3, 2, 256), {got}"


@pytest.fixture(scope="module")
def classifier_model() -> minimobile.MobileNetV1ForImageClassification:
    config = MobileNetV1Config(depth_multiplier=0.25, num_labels=7)
    return minimobile.MobileNetV1ForImageClassification(config, seed=3, num_threads=1)


def test_a_batch_cannot_be_explained_and_unknown_layers_are_named(
    classifier_model: minimobile.MobileNetV1ForImageClassification,
) -> None:
    with pytest.raises(InputError, match="expected one image to explain a value of, got 2"):
        classifier_model.explain(random_image((2, 3, 32, 32)), "layer.3", (0, 0, 0))
    with pytest.raises(UnknownLayerError, match="did you mean"):
        classifier_model.explain(random_image((1, 3, 32, 32)), "layr.3", (0, 0, 0))
    with pytest.raises(UnknownLayerError, match="did you mean"):
        classifier_model.trace(random_image((1, 3, 32, 32)), layers=["layr.3"])
    with pytest.raises(UnknownLayerError, match="expected one of the 1 layers that were traced"):
        classifier_model.trace(random_image((1, 3, 32, 32)), layers=["layer.3"])["layer.4"]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_trace_has_the_bits_of_a_run(
    data_format: str, classifier_model: minimobile.MobileNetV1ForImageClassification
) -> None:
    image = random_image((2, 3, 50, 64) if data_format == "channels_first" else (2, 50, 64, 3))
    trace = classifier_model.trace(image, data_format=data_format)
    out = classifier_model(image, output_hidden_states=True, data_format=data_format)
    assert [layer.name for layer in trace.layers] == [
        layer.name for layer in profile(classifier_model.graph, (50, 64)).layers
    ]
    np.testing.assert_array_equal(trace["logits"], out.logits)
    for index, values in enumerate(out.hidden_states):
        np.testing.assert_array_equal(trace[index], values)
    assert trace["Conv2d_3_pointwise"] is trace["layer.5"] is trace.tensors["layer.5"]
    position = (3, 2, 11)
    explanation = classifier_model.explain(image[1:], "layer.5", position, data_format=data_format)
    at = (2, 0, 0, 0)  # of the second image
    assert (at and explanation.computed == np.moveaxis(trace["layer.5"], 1, 3)[(1, *position)]) or (
        data_format == "channels_last" and explanation.computed == trace["layer.5"][(1, *position)]
    )


def test_the_rows_say_what_numpy_says_of_the_values(
    classifier_model: minimobile.MobileNetV1ForImageClassification,
) -> None:
    trace = classifier_model.trace(20 * random_image((2, 3, 50, 65)), every_node=True)
    for layer in trace.layers:
        values = trace.tensors[layer.name].astype(np.float64)
        assert (layer.minimum, layer.maximum) == (values.min(), values.max())
        assert layer.mean == pytest.approx(values.mean(), rel=1e-12)
        assert layer.zeros == np.count_nonzero(values == 0) / values.size
        has_limit = layer.operation == "activation"
        assert layer.at_limit == (np.count_nonzero(values == 6) / values.size if has_limit else None)
    assert [layer.name for layer in trace.layers] == [node.name for node in classifier_model.graph.nodes]
    assert any(layer.at_limit for layer in trace.layers)


def test_padding_follows_the_size() -> None:
    """TensorFlow's SAME: in all as much as the last window needs, the odd pixel below and on the right."""
    model = minimobile.MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25), num_threads=1)
    layers = {layer.name: layer for layer in model.trace(random_image((1, 3, 64, 65))).layers}
    assert layers["conv_stem"].padding == (0, 1, 1, 1)
    assert layers["conv_stem"].shape == (8, 32, 33)
    assert layers["layer.0"].padding == (1, 1, 1, 1)
    assert layers["layer.2"].padding == (0, 1, 1, 1)
    assert layers["layer.1"].padding is None
    assert layers["pooler"].padding is None
    dilated = minimobile.MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25, output_stride=8), num_threads=1)
    layers = {layer.name: layer for layer in dilated.trace(random_image((1, 3, 64, 65))).layers}
    assert layers["layer.24"].padding == (4, 4, 4, 4)


def test_a_block_s_name_stands_for_its_stages_and_every_node_for_their_insides() -> None:
    graph, _ = NETWORKS["v2"]
    stages = ["layer.2.expand_1x1", "layer.2.conv_3x3", "layer.2.reduce_1x1"]
    for name in ("layer.2", "layer_5", "mobilenet_v2.layer.2"):
        assert list(choose_rows(graph, [name])) == stages
    for name in ("layer.4", "layer_7"):  # with residual
        assert list(choose_rows(graph, [name])) == [*(stage.replace("2", "4", 1) for stage in stages), "layer.4"]
    for name in ("layer_5/output", "layer.2.reduce_1x1", 2):
        assert list(choose_rows(graph, [name])) == ["layer.2.reduce_1x1"]
    inside = choose_rows(graph, ["layer.2.conv_3x3"], every_node=True)
    assert {name: [node.op for node in nodes] for name, nodes in inside.items()} == {
        "layer.2.conv_3x3.convolution": ["depthwise_conv2d"],
        "layer.2.conv_3x3.normalization": ["batch_norm"],
        "layer.2.conv_3x3": ["activation"],
    }


def test_each_layer_names_the_step_that_computes_it_and_all_layers_in_it() -> None:
    model = minimobile.MobileNetV2ForSemanticSegmentation(MobileNetV2Config(depth_multiplier=0.25), num_threads=1)
    trace = model.trace(random_image((1, 3, 48, 32)), every_node=True)
    layers = {layer.name: layer for layer in trace.layers}
    assert "conv_1x1" not in layers, "no output needs it"
    block = ("layer.1.expand_1x1", "layer.1.conv_3x3", "layer.1.reduce_1x1", "layer.1")
    assert {layers[name].step for name in block} == {block}
    for layer in trace.layers:
        assert layer.name.removesuffix(".convolution").removesuffix(".normalization") in layer.step
        assert layer.microseconds is not None and layer.microseconds >= 0
        assert all(layers[name].microseconds == layer.microseconds for name in layer.step)
    (unused,) = model.trace(random_image((1, 3, 48, 32)), ["conv_1x1"]).layers
    assert (unused.microseconds, unused.step) == (None, ())


def test_the_reference_engine_has_no_steps_to_time() -> None:
    config = MobileNetV1Config(depth_multiplier=0.25)
    model = minimobile.MobileNetV1Model(config, engine="reference", dtype="float64")
    image = random_image((1, 3, 16, 16))
    assert {(layer.microseconds, layer.step) for layer in model.trace(image).layers} == {(None, ())}
    explanation = model.explain(image, "layer.3", (1, 1, 1))
    assert explanation.agrees
    assert len(bits(explanation.value)) == 16


def test_nan_passes_through_without_a_warning(
    classifier_model: minimobile.MobileNetV1ForImageClassification,
) -> None:
    image = random_image((1, 3, 32, 32))
    image[0, 0, 5, 5] = np.nan
    trace = classifier_model.trace(image)
    assert math.isnan(trace.layers[0].maximum)
    assert classifier_model.explain(image, "conv_stem", (2, 2, 0)).agrees


def shapes(graph: Graph, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
    from minimobile.operations.shapes import infer_shapes

    return infer_shapes(graph, *size)


def nearest_float32(value: Fraction) -> Fraction:
    """Round to 24 significant bits, ties to even; for values in the range of normal numbers, or zero."""
    if value == 0:
        return value
    exponent = math.floor(math.log2(abs(value))) - 23
    scaled = value / Fraction(2) ** exponent
    if abs(scaled) >= 2**24:  # log2 was rounded
        exponent, scaled = exponent + 1, scaled / 2
    elif abs(scaled) < 2**23:
        exponent, scaled = exponent - 1, scaled * 2
    return round(scaled) * Fraction(2) ** exponent


CHECKPOINTS = (
    "mobilenet_v1_0.25_128",
    "mobilenet_v2_1.0_224",
    "deeplabv3_mobilenet_v2_0.5_257",
)


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_corners_edges_and_middles_of_every_node_of_a_real_network(name: str, test_data: Path) -> None:
    """And the convolution before folding is PyTorch's, within what float32 explains."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    model = minimobile.load(test_data / "models" / "huggingface" / name, num_threads=2)
    image = model.processor(test_data / "images" / "grace_hopper.bmp", return_tensors="np")["pixel_values"]
    trace = model.trace(image, every_node=True)
    random = np.random.default_rng(0)
    for layer in trace.layers:
        channels, height, width = layer.shape
        for row, column in {(0, 0), (height - 1, width - 1), (height // 2, width - 1)}:
            channel = int(random.integers(channels))
            explanation = model.explain(image, layer.name, (row, column, channel))
            assert explanation.agrees, f"{name}: {layer.name} at {(row, column, channel)}"
        if layer.name.endswith(".convolution"):
            node = model.graph.node(layer.name)
            weight = torch.from_numpy(np.array(model.state_dict()[node.weights["weight"]], np.float64))
            source = image if node.inputs[0] == "pixel_values" else trace.tensors[node.inputs[0]]
            top, bottom, left, right = layer.padding or (0, 0, 0, 0)
            wide = torch.from_numpy(source.astype(np.float64))
            padded = torch.nn.functional.pad(wide, (left, right, top, bottom))
            groups = channels if node.op == "depthwise_conv2d" else 1
            options = {key: node.attributes.get(key, 1) for key in ("stride", "dilation")}
            truth = torch.nn.functional.conv2d(padded, weight, groups=groups, **options).numpy()
            error = np.abs(trace.tensors[layer.name] - truth).max()
            assert error <= 1e-5 * np.abs(truth).max(), layer.name
