"""A depthwise convolution and the pointwise one after it, done together, give the bits of each done alone."""

import itertools

import numpy as np
import pytest
from cases import assert_same_bits, open_runner, random_image, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.execution import bands
from minimobile.execution.bands import Block, choose_band
from minimobile.execution.packing import pack_weights
from minimobile.execution.program import compile_program
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.passes import lower
from minimobile_kernels.geometry import window
from minimobile_kernels.host import LANES

SLIDE = {"kernel_size": 3, "stride": 1, "dilation": 1, "padding": "SAME"}


def separable_graph(channels, out_channels, slide=SLIDE, is_sum=False):
    """Return a depthwise separable convolution, with `is_sum` its input added."""
    kernel = slide["kernel_size"]
    nodes = (
        Node("filtered.convolution", "depthwise_conv2d", (INPUT,), slide, {"weight": "a", "bias": "b"}),
        Node("filtered", "activation", ("filtered.convolution",), {"function": "relu6"}),
        Node("mixed", "pointwise_conv2d", ("filtered",), {}, {"weight": "c", "bias": "d"}),
        *([Node("out", "add", (INPUT, "mixed"))] if is_sum else []),
    )
    shapes = {
        "a": (channels, 1, kernel, kernel), "b": (channels,), "c": (out_channels, channels, 1, 1), "d": (out_channels,)
    }  # fmt: skip
    return Graph(nodes, channels, (nodes[-1].name,), shapes)


def chain_graph(channels, widths):
    """Return the beginning of a V1: a dense convolution, and depthwise and pointwise ones in turn."""
    nodes = [Node("stem", "conv2d", (INPUT,), {**SLIDE, "stride": 2}, {"weight": "stem"})]
    shapes = {"stem": (widths[0], channels, 3, 3)}
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        nodes.append(Node(f"dw{index}", "depthwise_conv2d", (nodes[-1].name,), SLIDE, {"weight": f"dw{index}"}))
        nodes.append(Node(f"pw{index}", "pointwise_conv2d", (nodes[-1].name,), {}, {"weight": f"pw{index}"}))
        shapes |= {f"dw{index}": (before, 1, 3, 3), f"pw{index}": (after, before, 1, 1)}
    return Graph(tuple(nodes), channels, (nodes[-1].name,), shapes)


def compiled(graph, shape, threads):
    lowered = lower(graph, graph.outputs)
    packed = pack_weights(lowered.nodes, random_weights(graph))
    return compile_program(lowered, packed, shape, is_channels_last=False, num_threads=threads)


def find_groups(program):
    """Return the names of the steps that are done together."""
    groups, open_group = [], []
    for row in program.table():
        open_group.append(row["name"])
        if not row["is_fused"]:
            groups.append(tuple(open_group))
            open_group = []
    return groups


def assert_agrees(graph, shape, threads=1, seed=0, asked=()):
    weights, image, names = random_weights(graph, seed), random_image(shape, seed), [*asked, *graph.outputs]
    defined = open_runner(graph, weights, engine="reference").run(image, names)
    found = open_runner(graph, weights, num_threads=threads).run(image, names)
    for name in names:
        assert_same_bits(found[name], defined[name], name)


def test_a_separable_convolution():
    graph = separable_graph(20, 30)
    assert find_groups(compiled(graph, (2, 20, 30, 17), 1))[-1] == ("filtered", "mixed")
    assert_agrees(graph, (2, 20, 30, 17))


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 40), st.integers(1, 30)), st.integers(1, 70),
    st.booleans(), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3, 3, 5]),
    st.sampled_from(["SAME", "VALID", ((1, 1), (1, 1)), ((3, 0), (0, 3))]),
    st.integers(1, 3), st.integers(0, 99), st.sampled_from([1 << 12, 1 << 15, 1 << 20]), st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_every_small_shape(shape, out, is_sum, stride, dilation, kernel, padding, threads, seed, scratch, least):
    is_sum = is_sum and stride == 1 and padding == "SAME"
    slide = {"kernel_size": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    if min(shape[2:]) + (0 if padding == "VALID" else 2) < (kernel - 1) * dilation + 1:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BAND_BYTES", scratch)  # from one after another to the whole map in a band
        patch.setattr(bands, "LEAST_ROWS", least)
        patch.setattr(bands, "MOST_ROWS", 3)
        assert_agrees(separable_graph(shape[1], shape[1] if is_sum else out, slide, is_sum), shape, threads, seed)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_in_bands_of_few_rows(threads, stride, monkeypatch):
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 15)
    monkeypatch.setattr(bands, "MOST_ROWS", 3)
    graph, shape = separable_graph(50, 20, {**SLIDE, "stride": stride}), (2, 50, 33, 20)
    program = compiled(graph, shape, threads)
    rows, height = program.steps["rows"][-1], program.steps["out_height"][-1]
    assert 4 <= rows < height
    assert program.steps["parts"][-1] == 2 * -(-height // rows)
    assert_agrees(graph, shape, threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_v1_is_pairs_behind_its_first_convolution(threads):
    graph = chain_graph(3, (16, 24, 40, 40))
    expected = [("stem", "dw0", "pw0"), ("dw1", "pw1"), ("dw2", "pw2")]
    assert find_groups(compiled(graph, (1, 3, 64, 64), threads)) == expected
    assert_agrees(graph, (1, 3, 64, 64), threads)


def test_maps_that_are_asked_for_are_there():
    graph = chain_graph(3, (16, 24, 40))
    for asked in ("stem", "dw0", "pw0", "dw1"):
        assert_agrees(graph, (2, 3, 38, 24), asked=[asked])


def test_a_sum_is_no_expansion():
    nodes = (
        Node("wide", "pointwise_conv2d", (INPUT,), {}, {"weight": "a"}),
        Node("sum", "add", (INPUT, "wide")),
        Node("filtered", "depthwise_conv2d", ("sum",), SLIDE, {"weight": "b"}),
        Node("out", "pointwise_conv2d", ("filtered",), {}, {"weight": "c"}),
    )
    graph = Graph(nodes, 20, ("out",), {"a": (20, 20, 1, 1), "b": (20, 1, 3, 3), "c": (8, 20, 1, 1)})
    assert find_groups(compiled(graph, (1, 20, 19, 12), 1)) == [(INPUT,), ("sum",), ("filtered", "out")]
    assert_agrees(graph, (1, 20, 19, 12))


def test_what_stands_before_a_filter_and_is_not_its_input_is_no_expansion():
    nodes = (
        Node("other", "pointwise_conv2d", (INPUT,), {}, {"weight": "a"}),
        Node("filtered", "depthwise_conv2d", (INPUT,), SLIDE, {"weight": "b"}),
        Node("mixed", "pointwise_conv2d", ("filtered",), {}, {"weight": "c"}),
        Node("out", "add", ("other", "mixed")),
    )
    graph = Graph(nodes, 20, ("out",), {"a": (8, 20, 1, 1), "b": (20, 1, 3, 3), "c": (8, 20, 1, 1)})
    assert find_groups(compiled(graph, (1, 20, 19, 12), 1)) == [(INPUT,), ("other",), ("filtered", "out")]
    assert_agrees(graph, (1, 20, 19, 12))


def test_infinite_weights_outside_the_image_are_skipped():
    graph = separable_graph(8, 5)
    weights, image = random_weights(graph), random_image((1, 8, 8, 9))
    weights["a"][:, :, 0] = np.inf  # the upper row of every filter
    defined = open_runner(graph, weights, engine="reference").run(image, ["mixed"])["mixed"]
    assert_same_bits(open_runner(graph, weights).run(image, ["mixed"])["mixed"], defined, "together")


def block(channels=256, size=14, out_channels=256, batch=1, stride=1):
    slide = window(size * stride, size * stride, (3, 3), stride, 1, "SAME")
    return Block(-(-channels // LANES), slide, channels * out_channels, batch, is_expanded=False)


@pytest.mark.parametrize(
    ("size", "batch", "threads", "rows"),
    [(14, 1, 1, 14), (14, 1, 2, 7), (7, 1, 1, 7), (4, 1, 2, 2), (19, 1, 2, 10), (7, 2, 2, 7), (28, 1, 2, 14)],
)
def test_each_thread_has_as_many_rows(size, batch, threads, rows):
    band = choose_band(block(channels=16 * LANES, out_channels=64, size=size, batch=batch), threads)
    assert (band.rows, band.expanded) == (rows, 0)
    assert band.filtered == 16 * LANES * rows * size


def test_bands_that_are_not_fair_are_left_to_those_who_share_channels():
    assert choose_band(block(size=7), 2) is None
    assert choose_band(block(size=14), 4) is None  # of fourteen rows four for one thread, where its share are 3.5
    assert choose_band(block(size=14), 5).rows == 3  # where it is 2.8


def test_large_weights_are_gone_through_once_or_by_bands_of_more_values_than_they_have():
    assert choose_band(block(1024, 7, 1024), 1).rows == 7
    assert choose_band(block(512, 14, 512, batch=8), 1) is None
    assert choose_band(block(512, 28, 512), 1) is None
    assert choose_band(block(512, 28, 64), 1).rows < 28
