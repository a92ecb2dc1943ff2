"""A pointwise convolution and the depthwise one after it, done together, give the bits of each done alone."""

import numpy as np
import pytest
from cases import assert_same_bits, open_runner, random_image, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.execution import parts, program
from minimobile.execution.packing import pack_weights
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.passes import lower
from minimobile_kernels import entries
from minimobile_kernels.host import LANES
from minimobile_kernels.mailbox import make_mailbox
from minimobile_kernels.step import ENTRIES, LINE


def expanded_graph(channels, expanded, stride, dilation, kernel_size=3, padding="SAME"):
    window = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding": padding}
    nodes = (
        Node("wide.convolution", "pointwise_conv2d", (INPUT,), {}, {"weight": "a"}),
        Node("wide", "activation", ("wide.convolution",), {"function": "relu6"}),
        Node("out", "depthwise_conv2d", ("wide",), window, {"weight": "b", "bias": "c"}),
    )
    shapes = {"a": (expanded, channels, 1, 1), "b": (expanded, 1, kernel_size, kernel_size), "c": (expanded,)}
    return Graph(nodes, channels, ("out",), shapes)


def assert_fused_agrees(graph, weights, image, threads=1):
    defined = open_runner(graph, weights, engine="reference").run(image, ["out", "wide"])
    engine = open_runner(graph, weights, num_threads=threads)
    assert_same_bits(engine.run(image, ["out"])["out"], defined["out"], "fused")
    asked = engine.run(image, ["out", "wide"])  # asking for the wide map leaves the two apart
    assert_same_bits(asked["wide"], defined["wide"], "wide map")
    assert_same_bits(asked["out"], defined["out"], "apart")


def test_an_inverted_residual():
    graph = expanded_graph(5, 40, stride=1, dilation=1)
    assert_fused_agrees(graph, random_weights(graph), random_image((2, 5, 9, 12)))


@settings(deadline=None, derandomize=True, max_examples=90)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 30), st.integers(1, 30)), st.integers(1, 70),
    st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.integers(1, 3), st.integers(0, 99),
    st.sampled_from([0, 1 << 14, program.CHUNK_BYTES]), st.sampled_from([1, program.LEAST_PART]),
    st.sampled_from([0, 0, parts.MOST_AGAIN]),
)  # fmt: skip
def test_every_small_shape(shape, expanded, stride, dilation, kernel_size, threads, seed, scratch, least, again):
    graph = expanded_graph(shape[1], expanded, stride, dilation, kernel_size)
    with pytest.MonkeyPatch.context() as patch:  # from as few rows as a window has to the whole map at once
        patch.setattr(program, "CHUNK_BYTES", scratch)
        patch.setattr(program, "LEAST_PART", least)
        patch.setattr(program, "GOOD_PART", least)
        patch.setattr(parts, "MOST_AGAIN", again)  # with 0 every map is cut into sections of rows
        assert_fused_agrees(graph, random_weights(graph, seed), random_image(shape, seed), threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (1, 1))])
@pytest.mark.parametrize("again", [0, parts.MOST_AGAIN])
def test_in_chunks_of_few_rows(threads, padding, again, monkeypatch):
    monkeypatch.setattr(parts, "MOST_AGAIN", again)
    monkeypatch.setattr(program, "CHUNK_BYTES", 4 * 5000)
    for stride in (1, 2):
        graph = expanded_graph(7, 50, stride, 1, padding=padding)
        assert_fused_agrees(graph, random_weights(graph), random_image((2, 7, 33, 20)), threads)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)), st.integers(1, 40),
    st.integers(1, 2), st.sampled_from(["SAME", ((1, 1), (1, 1))]), st.integers(1, 3), st.integers(0, 99),
)  # fmt: skip
def test_the_stem_and_the_depthwise_convolution_after_it(shape, channels, stride, padding, threads, seed):
    window = {"kernel_size": 3, "dilation": 1, "padding": padding}
    nodes = (
        Node("wide", "conv2d", (INPUT,), {**window, "stride": stride}, {"weight": "a"}),
        Node("out", "depthwise_conv2d", ("wide",), {**window, "stride": 1}, {"weight": "b", "bias": "c"}),
    )
    shapes = {"a": (channels, shape[1], 3, 3), "b": (channels, 1, 3, 3), "c": (channels,)}
    graph = Graph(nodes, shape[1], ("out",), shapes)
    assert_fused_agrees(graph, random_weights(graph, seed), random_image(shape, seed), threads)


def test_infinite_weights_outside_the_image_are_skipped():
    graph = expanded_graph(3, 8, 1, 1)
    weights = random_weights(graph)
    weights["b"][:, :, 0] = np.inf  # the upper row of every filter
    image = random_image((1, 3, 8, 9))
    assert_fused_agrees(graph, weights, image)
    assert np.isfinite(open_runner(graph, weights).run(image, ["out"])["out"][:, :, 0]).all()


@pytest.mark.parametrize(
    ("shape", "stride", "threads", "sections"),
    [((1, 8, 28, 28), 1, 2, 2), ((1, 8, 14, 14), 1, 2, 1), ((1, 8, 28, 28), 2, 2, 2), ((1, 8, 28, 28), 1, 3, 1),
     ((4, 8, 7, 7), 1, 2, 2), ((3, 8, 28, 28), 2, 2, 2), ((1, 8, 28, 28), 1, 1, 1),
     ((1, 8, 14, 14), 2, 2, 1)],  # of seven rows, four for one thread and three for the other: nine and six before
)  # fmt: skip
def test_maps_are_cut_into_sections_where_few_rows_are_computed_twice(shape, stride, threads, sections):
    graph = expanded_graph(shape[1], 40, stride, 1)
    lowered = lower(graph, graph.outputs)
    packed = pack_weights(lowered.nodes, random_weights(graph))
    steps = program.compile_program(lowered, packed, shape, False, threads).steps
    assert steps["sections"][-1] == sections


def run_alone(shape, stride, own, threads, thread):
    """Return what two sections become where each thread has one part, and all but one count as done, and the truth."""
    graph, image = expanded_graph(8, LANES, stride, 1), random_image(shape)
    lowered = lower(graph, graph.outputs)
    packed = pack_weights(lowered.nodes, random_weights(graph))
    made = program.compile_program(lowered, packed, shape, False, threads)
    steps = made.steps.copy()
    steps["sections"], steps["parts"] = 2, threads
    expected, found = (np.full(made.arena_size, np.nan, np.float32) for _ in range(2))
    nothing = np.zeros(1, np.int64)
    entries.run(steps, image.reshape(-1), packed.values, expected, made.taps, nothing, nothing, 1, 0)
    ready, fused = steps[:-2], steps[-2:]
    entries.run(ready, image.reshape(-1), packed.values, found, made.taps, nothing, nothing, 1, 0)
    control = np.zeros((2, threads, ENTRIES), np.int64)
    for other in set(range(threads)) - set(own):
        control[:, other, [0, LINE]] = 1
    mailbox = make_mailbox(threads - 1)
    entries.run(
        fused, image.reshape(-1), packed.values, found, made.taps, control.reshape(-1), mailbox, threads, thread
    )
    size = shape[0] * steps["out_height"][-1] * steps["out_width"][-1] * LANES
    out = slice(steps["out"][-1], steps["out"][-1] + size)
    rows = (-1, steps["out_width"][-1] * LANES)
    return found[out].reshape(rows), expected[out].reshape(rows)


def test_rows_that_were_kept_for_one_section_are_not_taken_for_those_of_another():
    # Four threads, of which the third alone is at work: of two sections with two parts each it does the first part of
    # the later one, and then the second part of the earlier one; the other two parts count as done.
    found, expected = run_alone((1, 8, 28, 28), 1, own=(1, 2), threads=4, thread=2)
    is_there = ~np.isnan(found)
    assert 0.4 < is_there.mean() < 0.6
    np.testing.assert_array_equal(found[is_there], expected[is_there])


@pytest.mark.parametrize(
    ("shape", "rows"), [((1, 8, 28, 20), 14), ((1, 8, 26, 20), 13), ((3, 8, 26, 20), 39), ((2, 8, 26, 20), 26)]
)
@pytest.mark.parametrize("thread", [0, 1])
def test_sections_have_as_many_rows(shape, rows, thread):
    found, expected = run_alone(shape, 2, own=(thread,), threads=2, thread=thread)
    is_there = ~np.isnan(found)
    own = slice(0, rows // 2) if thread == 0 else slice(rows // 2, rows)
    assert is_there[own].all()
    assert is_there.sum() == is_there[own].size
    np.testing.assert_array_equal(found[own], expected[own])
