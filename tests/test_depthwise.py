"""The depthwise convolution: by hand, and equal to its definition for every small shape."""

import pytest
from cases import assert_engines_agree
from hypothesis import given, settings
from hypothesis import strategies as st

PADDINGS = st.one_of(
    st.sampled_from(["SAME", "VALID"]),
    st.tuples(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3))),
)


def fits(height, width, kernel_size, dilation, padding):
    reach = (kernel_size - 1) * dilation + 1
    if padding == "SAME":
        return True
    (top, bottom), (left, right) = ((0, 0), (0, 0)) if padding == "VALID" else padding
    return top + height + bottom >= reach and left + width + right >= reach


def test_three_by_three():
    assert_engines_agree("depthwise_conv2d", (1, 5, 8, 9), kernel_size=3, stride=2, dilation=1, padding="SAME")


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 17), st.integers(1, 17)),
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), PADDINGS, st.integers(1, 2), st.integers(0, 99),
)  # fmt: skip
def test_every_small_shape(shape, kernel_size, stride, dilation, padding, threads, seed):
    if not fits(shape[2], shape[3], kernel_size, dilation, padding):
        padding = "SAME"
    assert_engines_agree(
        "depthwise_conv2d", shape, threads=threads, seed=seed,
        kernel_size=kernel_size, stride=stride, dilation=dilation, padding=padding,
    )  # fmt: skip


def test_more_than_128_taps():
    assert_engines_agree("depthwise_conv2d", (1, 3, 14, 13), kernel_size=13, stride=1, dilation=1, padding="SAME")


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_few_rows_and_many_channels(threads):
    assert_engines_agree(
        "depthwise_conv2d", (1, 200, 2, 7), threads=threads, kernel_size=3, stride=1, dilation=1, padding="SAME"
    )
