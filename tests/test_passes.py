"""Folding, fusing and dropping: a graph gets smaller and its values stay."""

import numpy as np
import pytest
from cases import assert_same_bits, open_runner, random_image, random_weights

from minimobile.execution.definitions import run_reference
from minimobile.execution.runner import ENGINES
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.folding import NORMALIZATION, fold_weights, scale_sums
from minimobile.operations.passes import fold_batch_norm, fuse_activations, fuse_residuals, keep_needed

V2 = mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35), "classification")


def operations(graph):
    return [node.op for node in graph.nodes]


def test_folding_leaves_no_batch_norm_and_changes_nothing():
    assert "batch_norm" not in operations(fold_batch_norm(V2))
    weights = random_weights(V2)
    image = random_image((1, 33, 34, 3)).astype(np.float64)
    folded = run_reference(V2, weights, image, V2.outputs)["classifier"]
    trained = run_reference(V2, weights, image, V2.outputs, fold=False)["classifier"]
    assert np.abs(folded - trained).max() <= 1e-12 * np.abs(trained).max()
    assert not np.array_equal(folded, trained)


def test_a_convolution_s_own_bias_goes_through_its_batch_norm():
    """By hand: (2 x + 5 - 1) * 3 / sqrt(8 + 1) + 7 is 2 x + 11; not folded, with the factor as float32 has it."""
    values = {"weight": 2, "bias": 5, "scale": 3, "shift": 7, "mean": 1, "variance": 8}
    weights = {role: np.full((1, 1, 1, 1) if role == "weight" else 1, value) for role, value in values.items()}
    roles = {role: role for role in ("weight", "bias", *NORMALIZATION)}
    folded = Node("layer", "conv2d", (INPUT,), {"epsilon": 1.0}, roles)
    assert [values.item() for values in fold_weights(folded, weights)] == [2, 11]
    weights["variance"] = np.array([1])
    plain = Node("layer", "conv2d", (INPUT,), {"epsilon": 1.0, "folds_batch_norm": False}, roles)
    factor = np.float64(np.float32(3 / np.sqrt(2)))
    assert [values.item() for values in scale_sums(plain, weights, np.float32)] == [2, factor, (5 - 1) * factor + 7]


def test_fusing_leaves_convolutions_and_the_pool():
    graph = fuse_residuals(fuse_activations(fold_batch_norm(V2)))
    assert set(operations(graph)) == {"conv2d", "depthwise_conv2d", "pointwise_conv2d", "global_average_pool2d"}
    assert sum(len(node.inputs) == 2 for node in graph.nodes) == 10  # the residuals of V2


@pytest.mark.parametrize("functions", [("relu6", "relu"), ("relu", "relu6"), ("relu6", "linear")])
def test_a_clamp_after_another_keeps_both(functions):
    convolution = Node("sums", "pointwise_conv2d", (INPUT,), {}, {"weight": "w"})
    names = ("sums", "first", "second")
    clamps = [
        Node(name, "activation", (source,), {"function": function})
        for name, source, function in zip(names[1:], names, functions, strict=False)
    ]
    graph = Graph((convolution, *clamps), 3, ("second",), {"w": (5, 3, 1, 1)})
    weights, image = random_weights(graph), 20 * random_image((1, 3, 9, 9))
    found, defined = (open_runner(graph, weights, engine=engine).run(image, ("second",)) for engine in ENGINES)
    assert_same_bits(found["second"], defined["second"], "second")


def test_an_early_layer_stops_there():
    graph = keep_needed(V2, ["layer.2.expand_1x1"])
    assert graph.nodes[-1].name == "layer.2.expand_1x1"
    assert not any(name.startswith(("mobilenet_v2.layer.3", "classifier")) for name in graph.shapes)


def test_segmentation_never_computes_the_last_convolution():
    graph = deeplab.build(MobileNetV2Config(num_labels=3, output_stride=8))
    assert "mobilenet_v2.conv_1x1.convolution.weight" in graph.shapes
    kept = keep_needed(graph, graph.outputs)
    assert not any("conv_1x1" in node.name for node in kept.nodes)


@pytest.mark.parametrize("step", ["convolution", "normalization"])
def test_asking_for_a_value_inside_a_layer_changes_no_other(step):
    weights, image = random_weights(V2), random_image((1, 3, 40, 33))
    engine, reference = open_runner(V2, weights), open_runner(V2, weights, engine="reference")
    inner = V2.resolve(f"layer.3.conv_3x3.{step}")
    plain = engine.run(image, V2.outputs)
    both = engine.run(image, [*V2.outputs, inner])
    assert np.array_equal(both["classifier"].view(np.int32), plain["classifier"].view(np.int32))
    assert np.array_equal(both[inner], reference.run(image, [inner])[inner])


def test_batch_norm_that_is_not_folded_scales_the_sums():
    graph = mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35, folds_batch_norm=False), "classification")
    weights, image = random_weights(graph), random_image((1, 3, 40, 33))
    names = ["conv_stem.first_conv", "conv_stem.conv_3x3", "layer.1", "layer.5.reduce_1x1", "classifier"]
    found = open_runner(graph, weights, num_threads=2).run(image, names)
    defined = open_runner(graph, weights, engine="reference").run(image, names)
    truth = open_runner(V2, weights, engine="reference", dtype="float64").run(image, names)
    for name in names:
        assert np.array_equal(found[name].view(np.int32), defined[name].view(np.int32)), name
        assert 0 < np.abs(found[name] - truth[name]).max() <= 1e-5 * np.abs(truth[name]).max()
    folded = open_runner(V2, weights).run(image, names)
    assert not np.array_equal(found["layer.1"], folded["layer.1"])


def test_a_layer_asked_for_is_the_trained_one():
    graph = mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25))
    weights, image = random_weights(graph), random_image((1, 32, 32, 3)).astype(np.float64)
    convolution = run_reference(graph, weights, image, ["layer.0.convolution"])["layer.0.convolution"]
    unfolded = run_reference(graph, weights, image, ["layer.0.convolution"], fold=False)["layer.0.convolution"]
    np.testing.assert_allclose(convolution, unfolded, rtol=1e-12, atol=1e-14)
