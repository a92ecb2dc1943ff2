"""The dense convolution: by hand, and equal to its definition for every small shape."""

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
