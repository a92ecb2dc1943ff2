"""The definitions: computed by hand, and by exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minimobile_kernels import reference
from minimobile_kernels.geometry import window

SMALL = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
ONES = np.ones((1, 3, 3, 1), np.float32)
NO_BIAS = np.zeros(1, np.float32)


def test_convolution_of_three_by_three_by_hand():
    same = reference.conv2d(SMALL, ONES, NO_BIAS, window(3, 3, (3, 3), 1, 1, "SAME"))
    assert same[0, :, :, 0].tolist() == [[12, 21, 16], [27, 45, 33], [24, 39, 28]]
    valid = reference.conv2d(SMALL, ONES, NO_BIAS + 0.5, window(3, 3, (3, 3), 1, 1, "VALID"))
    assert valid.tolist() == [[[[45.5]]]]
    strided = reference.conv2d(SMALL, ONES, NO_BIAS, window(3, 3, (3, 3), 2, 1, "SAME"))
    assert strided[0, :, :, 0].tolist() == [[12, 16], [24, 28]]
    dilated = reference.conv2d(SMALL, ONES, NO_BIAS, window(3, 3, (3, 3), 1, 2, "SAME"))
    assert dilated[0, :, :, 0].tolist() == [[1 + 3 + 7 + 9, 2 + 8, 20], [4 + 6, 5, 10], [20, 10, 20]]


def test_even_image_at_stride_two_differs_between_the_two_paddings():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    centre = np.zeros((1, 3, 3, 1), np.float32)
    centre[0, 1, 1] = 1
    tensorflow = reference.conv2d(image, centre, NO_BIAS, window(4, 4, (3, 3), 2, 1, "SAME"))
    pytorch = reference.conv2d(image, centre, NO_BIAS, window(4, 4, (3, 3), 2, 1, ((1, 1), (1, 1))))
    assert tensorflow[0, :, :, 0].tolist() == [[5, 7], [13, 15]]
    assert pytorch[0, :, :, 0].tolist() == [[0, 2], [8, 10]]


def test_one_hot_depthwise_filter_is_a_shift():
    image = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    weight = np.zeros((3, 3, 3), np.float32)
    weight[0, 2] = 1  # the pixel above and to the right
    shifted = reference.depthwise_conv2d(image, weight, np.zeros(3, np.float32), window(5, 6, (3, 3), 1, 1, "SAME"))
    expected = np.zeros_like(image)
    expected[:, 1:, :-1] = image[:, :-1, 1:]
    assert np.array_equal(shifted, expected)


def test_stride_two_is_every_second_pixel_of_stride_one():
    rng = np.random.default_rng(1)
    image, weight = rng.standard_normal((1, 9, 8, 2)), rng.standard_normal((3, 3, 2))
    padding = ((1, 1), (1, 1))
    dense = reference.depthwise_conv2d(image, weight, np.zeros(2), window(9, 8, (3, 3), 1, 1, padding))
    strided = reference.depthwise_conv2d(image, weight, np.zeros(2), window(9, 8, (3, 3), 2, 1, padding))
    assert np.array_equal(strided, dense[:, ::2, ::2])


def to_float32(exact: Fraction) -> np.float32:
    """Round an exact number to float32, ties to even, by integer arithmetic."""
    if exact == 0:
        return np.float32(0)
    exponent = max(int(np.floor(np.log2(float(abs(exact))))) - 23, -149) if float(abs(exact)) else -149
    while abs(exact) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    unit = Fraction(2) ** exponent
    return np.float32(float(round(exact / unit) * unit))


finite = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**40), max_value=2.0**40)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(finite, finite, finite)
@example(1.0, float(np.float32(2**-24)), 1.0)  # a tie
@example(float(np.float32(1 + 2**-23)), float(np.float32(1 + 2**-23)), -1.0)
@example(float(np.float32(1 + 2**-12)), float(np.float32(1 + 2**-12)), float(np.float32(2**-100)))  # just above a tie
@example(2.0**-80, 2.0**-70, 0.0)  # below the smallest float32
@example(2.0**-75, 3 * 2.0**-74, 2.0**-149)
@example(2.0**-75 * (1 + 2.0**-23), 2.0**-75 * (1 - 2.0**-23), 2.0**-127 + 2.0**-149)  # a subnormal just below a tie
def test_fma_rounds_once(x, w, accumulator):
    found = reference.fma(*(np.array([value], np.float32) for value in (x, w, accumulator)))[0]
    assert found == to_float32(Fraction(x) * Fraction(w) + Fraction(accumulator))


def test_sums_are_cut_into_blocks_of_128():
    ones = np.ones((1, 1, 1, 257), np.float32)
    weight = np.full((1, 257), 2.0**-24, np.float32)
    weight[0, 0] = 1
    found = reference.pointwise_conv2d(ones, weight, np.zeros(1, np.float32))
    # In one chain every 2**-24 would be lost beside the 1; here 127 are lost, 128 survive, then one more.
    expected = np.float32(np.float32(1 + 2.0**-17) + np.float32(2.0**-24))
    assert found[0, 0, 0, 0] == expected


def test_skipped_taps_leave_infinite_weights_out():
    weight = np.ones((1, 3, 3, 1), np.float32)
    weight[0, 0, 0] = np.inf
    found = reference.conv2d(SMALL, weight, NO_BIAS, window(3, 3, (3, 3), 1, 1, "SAME"))
    assert np.isfinite(found[0, 0, 0, 0]) and np.isinf(found[0, 1, 1, 0])


def test_average_pool_sums_in_float64():
    image = np.full((1, 50, 40, 1), 1 + 2.0**-23, np.float32)
    assert reference.average_pool2d(image, window(50, 40, (50, 40), 1, 1, "VALID"))[0, 0, 0, 0] == np.float32(
        1 + 2**-23
    )


def test_fixed_window_pool_by_hand():
    image = np.arange(16, dtype=np.float64).reshape(1, 4, 4, 1)
    found = reference.average_pool2d(image, window(4, 4, (3, 3), 1, 1, "VALID"))
    assert found[0, :, :, 0].tolist() == [[5, 6], [9, 10]]


def test_a_way_to_round_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="expected 'litert' or 'litert-single-rounding', got 'xnnpack'"):
        reference.requantize(np.array([5]), *map(np.array, reference.quantized_multiplier(0.25)), "xnnpack")


def test_resize_by_hand():
    row = np.array([0.0, 4.0], np.float32).reshape(1, 1, 2, 1)
    assert reference.resize_bilinear(row, 1, 4, False).ravel().tolist() == [0, 1, 3, 4]
    assert reference.resize_bilinear(row, 1, 5, True).ravel().tolist() == [0, 1, 2, 3, 4]
    single = np.full((1, 1, 1, 1), np.inf, np.float32)
    assert np.isinf(reference.resize_bilinear(single, 2, 3, True)).all()


@pytest.mark.crosscheck
def test_resize_against_pytorch():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    rng = np.random.default_rng(2)
    for height, width, out_height, out_width, align in [(5, 7, 9, 4, False), (5, 7, 9, 4, True), (1, 3, 4, 5, False)]:
        x = rng.standard_normal((2, height, width, 3))
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(x.transpose(0, 3, 1, 2)), (out_height, out_width), mode="bilinear", align_corners=align
        )
        found = reference.resize_bilinear(x, out_height, out_width, align)
        np.testing.assert_allclose(found, theirs.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-12)
