"""The dense convolution: by hand, and equal to its definition for every small shape."""

import numpy as np
from cases import (
    DILATIONS,
    KERNEL_SIZES,
    PADDINGS,
    assert_engines_agree,
    assert_same_bits,
    fits,
    one_node_graph,
    open_runner,
    random_image,
    random_weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def test_the_stem():
    assert_engines_agree("conv2d", (1, 3, 33, 40), out_channels=8, kernel_size=3, stride=2, dilation=1, padding="SAME")


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 17), st.integers(1, 17)), st.integers(1, 40),
    KERNEL_SIZES, st.integers(1, 3), DILATIONS, PADDINGS, st.integers(1, 2), st.integers(0, 99),
)  # fmt: skip
def test_every_small_shape(shape, out_channels, kernel_size, stride, dilation, padding, threads, seed):
    if not fits(shape[2], shape[3], kernel_size, dilation, padding):
        padding = "SAME"
    assert_engines_agree(
        "conv2d", shape, out_channels=out_channels, threads=threads, seed=seed,
        kernel_size=kernel_size, stride=stride, dilation=dilation, padding=padding,
    )  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 7), st.integers(1, 70)), st.integers(1, 40),
    st.integers(1, 3), DILATIONS, PADDINGS, st.sampled_from(["channels_first", "channels_last"]), st.integers(0, 99),
)  # fmt: skip
def test_wide_images(shape, out_channels, stride, dilation, padding, layout, seed):
    if not fits(shape[2], shape[3], 3, dilation, padding):
        padding = "SAME"
    window = {"kernel_size": 3, "stride": stride, "dilation": dilation, "padding": padding}
    graph, image = one_node_graph("conv2d", shape[1], out_channels, **window), random_image(shape, seed)
    weights = random_weights(graph, seed)
    if layout == "channels_last":
        image = image.transpose(0, 2, 3, 1)
    defined = open_runner(graph, weights, engine="reference").run(image, ["node"], layout)["node"]
    assert_same_bits(open_runner(graph, weights).run(image, ["node"], layout)["node"], defined, layout)


def test_infinite_weights_outside_the_image_are_skipped():
    graph = one_node_graph("conv2d", 3, 20, kernel_size=3, stride=2, dilation=1, padding=((1, 1), (1, 1)))
    weights, image = random_weights(graph), random_image((1, 3, 20, 40))
    (name,) = [name for name, weight in weights.items() if weight.ndim == 4]
    weights[name][:, :, 0] = weights[name][:, :, :, 0] = np.inf  # the upper row and the left column of every filter
    defined = open_runner(graph, weights, engine="reference").run(image, ["node"])["node"]
    assert_same_bits(open_runner(graph, weights).run(image, ["node"])["node"], defined, "infinite")


def test_more_than_128_terms():
    for channels in (14, 15, 29, 43):  # 126, 135, 261, 387 terms
        assert_engines_agree(
            "conv2d", (1, channels, 9, 20), out_channels=33, kernel_size=3, stride=1, dilation=1, padding="SAME"
        )


def test_both_layouts_of_the_image_are_read_as_they_are():
    graph = one_node_graph("conv2d", 3, 10, kernel_size=3, stride=2, dilation=1, padding="SAME")
    image = random_image((2, 3, 20, 31))
    engine = open_runner(graph, random_weights(graph))
    first = engine.run(image, ["node"])["node"]
    last = engine.run(image.transpose(0, 2, 3, 1), ["node"], "channels_last")["node"]
    assert_same_bits(last.transpose(0, 3, 1, 2).copy(), first, "channels_last")
    either = random_image((1, 3, 9, 3))  # of one shape, whatever its layout
    for layout in ("channels_first", "channels_last"):
        defined = open_runner(graph, random_weights(graph), engine="reference").run(either, ["node"], layout)["node"]
        assert_same_bits(engine.run(either, ["node"], layout)["node"], defined, layout)
