"""The pointwise convolution: by hand, and equal to its definition at every tile."""

import pytest
from cases import assert_engines_agree
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.execution import program
from minimobile_kernels.host import LANES


def test_one_pixel_one_channel():
    assert_engines_agree("pointwise_conv2d", (1, 1, 1, 1), out_channels=1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 17), st.integers(1, 17), st.integers(1, 70),
    st.integers(1, 2), st.integers(0, 99), st.sampled_from([1, program.LEAST_PART]),
)  # fmt: skip
def test_every_small_shape(n, channels, height, width, out_channels, threads, seed, least):
    shape = (n, channels, height, width)
    with pytest.MonkeyPatch.context() as patch:  # from one part to four for each thread, which cut panels
        patch.setattr(program, "LEAST_PART", least)
        patch.setattr(program, "GOOD_PART", least)
        assert_engines_agree("pointwise_conv2d", shape, out_channels=out_channels, threads=threads, seed=seed)


@pytest.mark.parametrize("channels", [127, 128, 129, 255, 256, 257, 640])
@pytest.mark.parametrize("pixels", [1, 6, 7, 13, 14, 15, 49])
def test_blocks_of_128_terms_at_every_tile(channels, pixels):
    assert_engines_agree("pointwise_conv2d", (1, channels, 1, pixels), out_channels=3 * LANES + 1)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_map_in_bands(threads):
    assert_engines_agree("pointwise_conv2d", (1, 300, 40, 41), out_channels=40, threads=threads)
