"""Three convolutions that are done together, band by band of rows, give the bits of each done alone."""

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
from minimobile_kernels import entries
from minimobile_kernels.geometry import window
from minimobile_kernels.host import LANES
from minimobile_kernels.mailbox import make_mailbox
from minimobile_kernels.step import ENTRIES, LINE


def residual_graph(channels, expanded, out_channels, stride=1, dilation=1, kernel_size=3, padding="SAME", stem=None):
    """Return an inverted residual; with `stem` its first convolution is dense, and has that stride."""
    slide = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding": padding}
    is_sum = stem is None and stride == 1 and channels == out_channels and padding == "SAME"
    wide = {"kernel_size": 3, "stride": stem, "dilation": 1, "padding": "SAME"} if stem else {}
    nodes = (
        Node("wide.convolution", "conv2d" if stem else "pointwise_conv2d", (INPUT,), wide, {"weight": "a"}),
        Node("wide", "activation", ("wide.convolution",), {"function": "relu6"}),
        Node("filtered.convolution", "depthwise_conv2d", ("wide",), slide, {"weight": "b", "bias": "c"}),
        Node("filtered", "activation", ("filtered.convolution",), {"function": "relu6"}),
        Node("narrow", "pointwise_conv2d", ("filtered",), {}, {"weight": "d", "bias": "e"}),
        *([Node("sum", "add", (INPUT, "narrow"))] if is_sum else []),
    )
    shapes = {
        "a": (expanded, channels, *((3, 3) if stem else (1, 1))), "b": (expanded, 1, kernel_size, kernel_size),
        "c": (expanded,), "d": (out_channels, expanded, 1, 1), "e": (out_channels,),
    }  # fmt: skip
    return Graph(nodes, channels, (nodes[-1].name,), shapes)


def compiled(graph, shape, threads, seed=0):
    lowered = lower(graph, graph.outputs)
    packed = pack_weights(lowered.nodes, random_weights(graph, seed))
    return compile_program(lowered, packed, shape, is_channels_last=False, num_threads=threads), packed


def assert_together_agrees(graph, shape, threads=1, seed=0):
    weights, image, (out,) = random_weights(graph, seed), random_image(shape, seed), graph.outputs
    defined = open_runner(graph, weights, engine="reference").run(image, [out])[out]
    assert_same_bits(open_runner(graph, weights, num_threads=threads).run(image, [out])[out], defined, "together")


def test_an_inverted_residual():
    graph = residual_graph(20, 70, 20)
    program, _ = compiled(graph, (2, 20, 30, 17), 1)
    assert [row["is_fused"] for row in program.table()[-3:]] == [True, True, False]
    assert program.names[-1] == "sum"
    assert_together_agrees(graph, (2, 20, 30, 17))


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 40), st.integers(1, 30)), st.integers(1, 70),
    st.integers(1, 40), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3, 3, 5]),
    st.sampled_from(["SAME", "VALID", ((1, 1), (1, 1)), ((3, 0), (0, 3))]), st.sampled_from([None, None, 1, 2]),
    st.integers(1, 3), st.integers(0, 99), st.sampled_from([1 << 12, 1 << 15, 1 << 20]), st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_every_small_shape(
    shape, expanded, out, is_sum, stride, dilation, kernel, padding, stem, threads, seed, scratch, least
):
    out_channels = shape[1] if is_sum else out
    graph = residual_graph(shape[1], expanded, out_channels, stride, dilation, kernel, padding, stem)
    reach = (kernel - 1) * dilation + 1
    height, width = (-(-size // (stem or 1)) for size in shape[2:])
    if min(height, width) + (0 if padding == "VALID" else 2) < reach:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BAND_BYTES", scratch)  # from one after another to the whole map in a band
        patch.setattr(bands, "LEAST_ROWS", least)
        assert_together_agrees(graph, shape, threads, seed)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("stem", [None, 2])
def test_in_bands_of_few_rows(threads, stride, stem, monkeypatch):
    monkeypatch.setattr(bands, "BAND_BYTES", 44 << 10)
    graph = residual_graph(3, 50, 20, stride, stem=stem)
    shape = (2, 3, 66, 40) if stem else (2, 3, 33, 20)
    program, _ = compiled(graph, shape, threads)
    assert 4 <= program.steps["rows"][-1] < program.steps["out_height"][-1]
    assert_together_agrees(graph, shape, threads)


def test_infinite_weights_outside_the_image_are_skipped():
    graph = residual_graph(3, 8, 5)
    weights = random_weights(graph)
    weights["b"][:, :, 0] = np.inf  # the upper row of every filter
    image = random_image((1, 3, 8, 9))
    defined = open_runner(graph, weights, engine="reference").run(image, ["narrow"])["narrow"]
    assert_same_bits(open_runner(graph, weights).run(image, ["narrow"])["narrow"], defined, "together")


@pytest.mark.parametrize("asked", ["wide", "filtered"])
def test_maps_that_are_asked_for_are_there(asked):
    graph = residual_graph(5, 40, 7)
    weights, image = random_weights(graph), random_image((2, 5, 19, 12))
    defined = open_runner(graph, weights, engine="reference").run(image, [asked, "narrow"])
    found = open_runner(graph, weights).run(image, [asked, "narrow"])
    for name in (asked, "narrow"):
        assert_same_bits(found[name], defined[name], name)


def test_a_projection_is_no_expansion_of_what_follows_it():
    graph = residual_graph(5, 40, 24)
    last = Node("last", "depthwise_conv2d", ("narrow",), graph.nodes[2].attributes, {"weight": "f", "bias": "e"})
    graph = Graph((*graph.nodes, last), 5, ("last",), {**graph.shapes, "f": (24, 1, 3, 3)})
    program, _ = compiled(graph, (1, 5, 19, 12), 2)
    assert [row["is_fused"] for row in program.table()[-4:]] == [True, True, False, False]
    assert_together_agrees(graph, (1, 5, 19, 12), 2)


def test_what_reads_another_map_is_done_by_itself():
    graph = residual_graph(5, 40, 7)
    *first, narrow = graph.nodes
    apart = Node("apart", "pointwise_conv2d", (INPUT,), {}, {"weight": "f", "bias": "e"})
    graph = Graph((*first, apart, narrow), 5, ("narrow", "apart"), {**graph.shapes, "f": (7, 5, 1, 1)})
    weights, image = random_weights(graph), random_image((1, 5, 19, 12))
    defined = open_runner(graph, weights, engine="reference").run(image, ["narrow", "apart"])
    found = open_runner(graph, weights).run(image, ["narrow", "apart"])
    for name in ("narrow", "apart"):
        assert_same_bits(found[name], defined[name], name)


def test_large_weights_are_gone_through_once():
    for out_channels in (400, 40):  # the expansion's weights alone are too many
        program, _ = compiled(residual_graph(400, 400, out_channels), (1, 400, 20, 20), 1)
        assert [row["is_fused"] for row in program.table()[-3:]] == [False, True, False]
    program, _ = compiled(residual_graph(40, 400, 40), (1, 40, 18, 18), 1)
    assert program.steps["rows"][-1] == 18


def block(channels=144, size=56, stride=1, out_channels=24, batch=1):
    slide = window(size * stride, size * stride, (3, 3), stride, 1, "SAME")
    return Block(-(-channels // LANES), slide, channels * 2 * out_channels, batch)


@pytest.mark.parametrize(
    ("size", "threads", "rows"),
    [(56, 1, 14), (56, 2, 14), (56, 3, 10), (56, 5, 12), (14, 1, 14), (14, 2, 7), (7, 2, 4)],
)
def test_bands_are_as_high_as_there_is_room_and_as_many_for_each_thread(size, threads, rows, monkeypatch):
    monkeypatch.setattr(bands, "BAND_BYTES", 4 * sum(bands._band(block(), 14)[1:]))
    assert choose_band(block(size=size), threads).rows == rows


def test_the_whole_map_needs_no_room_for_rows_of_the_next_band(monkeypatch):
    whole, almost = (4 * sum(bands._band(block(192, 27), rows)[1:]) for rows in (27, 26))
    assert whole < almost
    monkeypatch.setattr(bands, "BAND_BYTES", whole)
    assert choose_band(block(192, 27), 1).rows == 27


def test_a_thread_has_room_for_a_band():
    for channels, size, stride, batch in [(144, 56, 1, 1), (96, 56, 2, 1), (32, 257, 1, 1), (192, 65, 1, 3)]:
        band = choose_band(block(channels, size, stride, batch=batch), 2)
        assert 4 * (band.expanded + band.filtered) <= bands.BAND_BYTES
        assert band.rows >= bands.LEAST_ROWS


def test_large_weights_and_wide_maps_are_made_one_after_another():
    assert choose_band(block(576, 33, out_channels=96), 1).rows < 33
    assert choose_band(block(576, 33, out_channels=160), 1) is None
    assert choose_band(block(size=2000), 1) is None


def test_rows_that_were_kept_for_one_band_are_not_taken_for_those_of_another(monkeypatch):
    # Four threads, of which the third alone is at work: after its own bands it does those of the second, which lie
    # before them; those of the first and of the last count as done.
    monkeypatch.setattr(bands, "BAND_BYTES", 12 * 28 * LANES * 4)
    monkeypatch.setattr(bands, "LEAST_ROWS", 2)
    graph, shape = residual_graph(8, LANES, LANES), (1, 8, 32, 28)
    program, packed = compiled(graph, shape, 4)
    image, nothing = random_image(shape).reshape(-1), np.zeros(1, np.int64)
    expected, found = (np.full(program.arena_size, np.nan, np.float32) for _ in range(2))
    entries.run(program.steps, image, packed.values, expected, program.taps, nothing, nothing, 1, 0)
    ready, fused = program.steps[:-3], program.steps[-3:]
    entries.run(ready, image, packed.values, found, program.taps, nothing, nothing, 1, 0)
    each = 4
    assert fused["parts"][-1] == 4 * each
    control = np.zeros((3, 4, ENTRIES), np.int64)
    control[0, 0, [0, LINE]] = control[0, 3, [0, LINE]] = each
    entries.run(fused, image, packed.values, found, program.taps, control.reshape(-1), make_mailbox(3), 4, 2)
    out = slice(fused["out"][-1], fused["out"][-1] + 32 * 28 * LANES)
    is_there = ~np.isnan(found[out])
    assert is_there.mean() == 0.5
    np.testing.assert_array_equal(found[out][is_there], expected[out][is_there])
