"""Sum, concatenation, resizing: what glues the blocks of a network together."""

import numpy as np
from cases import assert_engines_agree, assert_same_bits, open_runner, random_image, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.networks.graph import INPUT, Graph, Node

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))


def test_sum_with_itself_doubles():
    image = random_image((2, 5, 3, 4))
    graph = Graph((Node("node", "add", (INPUT, INPUT)),), 5, ("node",), {})
    assert np.array_equal(open_runner(graph, {}).run(image, ["node"])["node"], image * 2)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(SHAPES, st.integers(1, 2))
def test_sum_and_concatenation(shape, threads):
    assert_engines_agree("add", shape, threads=threads)
    assert_engines_agree("concatenate", shape, threads=threads)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(SHAPES, st.integers(1, 4), st.booleans(), st.integers(1, 2))
def test_resize_to_the_size_of_another_map(shape, window, align_corners, threads):
    nodes = (
        Node("small", "average_pool2d", (INPUT,), {"kernel_size": window, "stride": window}),
        Node("node", "resize_bilinear", ("small", INPUT), {"align_corners": align_corners}),
    )
    graph = Graph(nodes, shape[1], ("node",), {})
    image = random_image(shape)
    compiled = open_runner(graph, {}, num_threads=threads).run(image, ["node"])["node"]
    defined = open_runner(graph, {}, engine="reference").run(image, ["node"])["node"]
    assert_same_bits(compiled, defined, f"resize {shape} {window} {align_corners} {threads}")


def test_residual_and_activation_in_the_convolution():
    nodes = (
        Node("left", "pointwise_conv2d", (INPUT,), {}, {"weight": "a"}),
        Node("right", "pointwise_conv2d", ("left",), {}, {"weight": "b"}),
        Node("sum", "add", ("left", "right")),
        Node("out", "activation", ("sum",), {"function": "relu6"}),
    )
    graph = Graph(nodes, 130, ("out",), {"a": (20, 130, 1, 1), "b": (20, 20, 1, 1)})
    weights, image = random_weights(graph), random_image((2, 130, 5, 6))
    defined = open_runner(graph, weights, engine="reference").run(image, ["out", "sum", "right"])
    engine = open_runner(graph, weights)
    assert_same_bits(engine.run(image, ["out"])["out"], defined["out"], "fused")
    for name, value in engine.run(image, ["out", "sum", "right"]).items():
        assert_same_bits(value, defined[name], f"asked for {name}")


def assert_graph_agrees(channels, *nodes):
    """Compare both engines on the last of the nodes; pointwise weights have 16 outputs and as many inputs or twice."""
    shapes = {name: (16, 32 if name == "twice" else channels, 1, 1) for node in nodes for name in node.weights.values()}
    if "filter" in shapes:
        shapes["filter"] = (channels, 1, 3, 3)
    graph = Graph(nodes, channels, (nodes[-1].name,), shapes)
    weights, image, name = random_weights(graph), random_image((2, channels, 5, 6)), nodes[-1].name
    found, defined = (
        open_runner(graph, weights, engine=engine).run(image, [name])[name] for engine in ("compiled", "reference")
    )
    assert_same_bits(found, defined, f"{nodes}")


def mix(name, source=INPUT):
    return Node(name, "pointwise_conv2d", (source,), {}, {"weight": name})


def test_a_sum_goes_into_no_convolution_that_has_a_sum_or_a_clamp_already():
    first = mix("a"), mix("b", "a")
    assert_graph_agrees(16, *first, Node("sum", "add", ("a", "b")), Node("again", "add", ("a", "sum")))
    bent = Node("bent", "activation", ("b",), {"function": "relu"})
    assert_graph_agrees(16, *first, bent, Node("sum", "add", ("a", "bent")))


def test_a_depthwise_convolution_takes_in_its_own_input_alone():
    window = {"kernel_size": 3, "stride": 1, "dilation": 1, "padding": "SAME"}
    other = Node("other", "depthwise_conv2d", (INPUT,), window, {"weight": "filter"})
    assert_graph_agrees(16, mix("wide"), other, Node("sum", "add", ("wide", "other")))


def test_a_joined_map_lives_as_long_as_it_is_read_and_is_joined_once():
    both, joined = (mix("a"), mix("b")), Node("joined", "concatenate", ("a", "b"))
    assert_graph_agrees(
        16, *both, joined, mix("twice", "joined"), mix("c", "twice"), mix("d", "c"), Node("late", "add", ("d", "a"))
    )
    others = mix("c"), joined, Node("second", "concatenate", ("a", "c"))
    assert_graph_agrees(16, *both, *others, Node("sum", "add", ("joined", "second")))
