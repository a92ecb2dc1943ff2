"""Graphs as such: names, aliases, what an output needs, and what a builder must never hand over."""

from __future__ import annotations

import dataclasses

import pytest

from minimobile.errors import UnknownLayerError
from minimobile.models.weights import trim
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph, Node, needed_nodes
from minimobile.networks.layers import Draft, spread_strides

A = Node("a", "pointwise_conv2d", (INPUT,), weights={"weight": "a.weight"})
B = Node("b", "add", (INPUT, "a"))
C = Node("c", "add", ("a", "a"))
SMALL = Graph((A, B, C), 3, ("b",), {"a.weight": (3, 3, 1, 1)}, {"first": "a"}, ("a", "c"))


def test_layers_go_by_name_alias_and_index():
    assert [SMALL.resolve(layer) for layer in ("b", "first", 0, -1)] == ["b", "a", "a", "c"]
    assert SMALL.node("c") is C


def test_unknown_layers_are_told_the_closest():
    graph = mobilenet_v1.build(MobileNetV1Config())
    with pytest.raises(UnknownLayerError, match="did you mean Conv2d_11_pointwise"):
        graph.resolve("conv2d_11_pointwis")
    with pytest.raises(UnknownLayerError, match="see inspect for all"):
        graph.resolve("???")
    with pytest.raises(UnknownLayerError, match="between 0 and 25, got 26"):
        graph.resolve(26)
    with pytest.raises(UnknownLayerError, match="got bool"):
        graph.resolve(True)


def test_an_output_needs_its_inputs_and_nothing_else():
    assert needed_nodes(SMALL, ["b"]) == (A, B)
    assert needed_nodes(SMALL, ["a"]) == (A,)
    assert needed_nodes(SMALL, ["c", "b"]) == (A, B, C)


def test_trimming_keeps_outputs_and_hidden_states():
    graph = mobilenet_v2.build(MobileNetV2Config(), head="classification")
    bare = trim(dataclasses.replace(graph, outputs=("conv_1x1",)))
    assert {"pooler", "classifier"} == {n.name for n in graph.nodes} - {n.name for n in bare.nodes}
    assert set(graph.shapes) - set(bare.shapes) == {"classifier.weight", "classifier.bias"}
    assert "Logits" not in bare.aliases and bare.hidden_states == graph.hidden_states


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": (B, A)},
        {"nodes": (A, A)},
        {"shapes": {}},
        {"outputs": ("z",)},
        {"aliases": {"first": "z"}},
        {"hidden_states": ("z",)},
    ],
)
def test_broken_graphs_cannot_be_made(changes):
    with pytest.raises(AssertionError):
        dataclasses.replace(SMALL, **changes)


def test_strides_become_dilations_after_the_output_stride():
    assert list(spread_strides([1, 2, 1, 2, 1], 32)) == [(1, 1), (2, 1), (1, 1), (2, 1), (1, 1)]
    assert list(spread_strides([2, 2, 2, 1], 4)) == [(2, 1), (1, 1), (1, 2), (1, 4)]


@pytest.mark.parametrize(
    ("activation", "has_normalization", "names"),
    [
        ("relu", True, ["x.convolution", "x.normalization", "x"]),
        ("linear", True, ["x.convolution", "x"]),
        ("linear", False, ["x"]),
        ("relu", False, ["x.convolution", "x"]),
    ],
)
def test_the_last_step_of_a_layer_carries_its_name(activation, has_normalization, names):
    draft = Draft(MobileNetV1Config(), prefix="net.")
    draft.add_conv_layer("x", INPUT, 4, activation=activation, has_normalization=has_normalization)
    assert [node.name for node in draft.nodes] == names
    graph = draft.finish(("x",), [])
    for step in ("convolution", *["normalization"] * has_normalization, *["activation"] * (activation != "linear")):
        assert graph.resolve(f"x.{step}") in names
    assert ("net.x.convolution.bias" in graph.shapes) is not has_normalization


@pytest.mark.parametrize(
    "graph",
    [
        mobilenet_v1.build(MobileNetV1Config(), head="classification"),
        mobilenet_v2.build(MobileNetV2Config(), head="classification"),
        deeplab.build(MobileNetV2Config()),
    ],
)
def test_every_operation_has_the_attributes_and_weights_that_the_engines_expect(graph):
    window = {"kernel_size", "stride", "dilation", "padding"}
    norm = {"weight", "bias", "mean", "variance"}
    expected = {
        "conv2d": (window, {"weight"}),
        "depthwise_conv2d": (window, {"weight"}),
        "batch_norm": ({"epsilon"}, norm),
        "activation": ({"function"}, set()),
        "add": (set(), set()),
        "concatenate": (set(), set()),
        "global_average_pool2d": (set(), set()),
        "resize_bilinear": ({"align_corners"}, set()),
    }
    for node in graph.nodes:
        if node.op == "pointwise_conv2d":
            assert not node.attributes and set(node.weights) in ({"weight"}, {"weight", "bias"})
        else:
            assert (set(node.attributes), set(node.weights)) == expected[node.op], node.name
    used = [weight for node in graph.nodes for weight in node.weights.values()]
    assert sorted(used) == sorted(graph.shapes)
