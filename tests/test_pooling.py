"""Average pooling: by hand, and equal to its definition for every small window."""

from cases import assert_engines_agree
from hypothesis import given, settings
from hypothesis import strategies as st


def test_global_pool():
    assert_engines_agree("global_average_pool2d", (2, 20, 7, 5))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 17), st.integers(1, 17)),
    st.integers(1, 8), st.integers(1, 3), st.integers(1, 2),
)  # fmt: skip
def test_every_small_window(shape, kernel_size, stride, threads):
    assert_engines_agree("average_pool2d", shape, threads=threads, kernel_size=kernel_size, stride=stride)
