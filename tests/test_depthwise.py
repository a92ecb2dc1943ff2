"""The depthwise convolution: by hand, and equal to its definition for every small shape."""

import itertools

import numpy as np
import pytest
from cases import DILATIONS, KERNEL_SIZES, PADDINGS, assert_engines_agree, fits
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.execution.definitions import run_reference
from minimobile.execution.engine import CompiledRunner
from minimobile.networks.graph import INPUT, Graph, Node


def test_three_by_three():
    assert_engines_agree("depthwise_conv2d", (1, 5, 8, 9), kernel_size=3, stride=2, dilation=1, padding="SAME")


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 17), st.integers(1, 17)),
    KERNEL_SIZES, st.integers(1, 3), DILATIONS, PADDINGS, st.integers(1, 2), st.integers(0, 99),
)  # fmt: skip
def test_every_small_shape(shape, kernel_size, stride, dilation, padding, threads, seed):
    if not fits(shape[2], shape[3], kernel_size, dilation, padding):
        padding = "SAME"
    assert_engines_agree(
        "depthwise_conv2d", shape, threads=threads, seed=seed,
        kernel_size=kernel_size, stride=stride, dilation=dilation, padding=padding,
    )  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_three_by_three_with_any_border(stride):
    for before, after in itertools.product(range(4), range(4)):
        border = (before, after)
        assert_engines_agree(
            "depthwise_conv2d", (1, 3, 6, 13), kernel_size=3, stride=stride, dilation=1, padding=(border, border)
        )


def test_more_than_128_taps():
    assert_engines_agree("depthwise_conv2d", (1, 3, 14, 13), kernel_size=13, stride=1, dilation=1, padding="SAME")


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_few_rows_and_many_channels(threads):
    assert_engines_agree(
        "depthwise_conv2d", (1, 200, 2, 7), threads=threads, kernel_size=3, stride=1, dilation=1, padding="SAME"
    )


def test_a_bias_too_small_for_float32():
    # Rounded it would be -0. Products too small for float32 give sums of -0, to which taps outside the image, read as
    # zeros, add +0: only a bias of +0 makes both the same.
    padding = {"kernel_size": 3, "stride": 1, "dilation": 1, "padding": "SAME"}
    node = Node("depthwise", "depthwise_conv2d", (INPUT,), padding, {"weight": "w", "bias": "b"})
    graph = Graph((node,), 1, (node.name,), {"w": (1, 1, 3, 3), "b": (1,)})
    weights = {"w": np.full((1, 1, 3, 3), 1e-30, np.float32), "b": np.array([-1e-60])}
    x = np.full((1, 8, 8, 1), -1e-30, np.float32)
    defined = run_reference(graph, weights, x, graph.outputs)[node.name]
    compiled = CompiledRunner(graph, weights).run(x, graph.outputs, "channels_last")[node.name]
    np.testing.assert_array_equal(compiled.view(np.uint32), defined.view(np.uint32))
