"""Padding and output sizes on the whole grid, against TensorFlow's rule written down independently."""

import math

import pytest

from minimobile_kernels.geometry import output_size, pad_amounts, valid_range, window


def test_same_padding_puts_the_odd_pixel_after():
    assert pad_amounts(224, 3, 2, 1, "SAME") == (0, 1)
    assert pad_amounts(225, 3, 2, 1, "SAME") == (1, 1)
    assert pad_amounts(7, 3, 1, 4, "SAME") == (4, 4)


def tensorflow_same(size: int, kernel_size: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """TensorFlow's documentation of `tf.nn.convolution`, by the remainder of the size, not by the output's size."""
    effective = (kernel_size - 1) * dilation + 1
    total = max(effective - stride, 0) if size % stride == 0 else max(effective - size % stride, 0)
    return math.ceil(size / stride), total // 2, total - total // 2


def test_same_padding_on_the_whole_grid():
    for size in range(1, 65):
        for kernel_size in (1, 3, 5):
            for stride in (1, 2, 3):
                for dilation in (1, 2, 4):
                    case = (size, kernel_size, stride, dilation)
                    expected, before, after = tensorflow_same(*case)
                    assert pad_amounts(*case, "SAME") == (before, after), case
                    assert output_size(*case, "SAME") == expected, case


@pytest.mark.parametrize("padding", ["SAME", "VALID", (0, 1), (2, 3)])
def test_valid_range_is_where_the_tap_reads_a_pixel(padding):
    for size in range(1, 20):
        for kernel_size, stride, dilation in [(1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 3, 2), (5, 2, 3)]:
            before, _ = pad_amounts(size, kernel_size, stride, dilation, padding)
            count = max(output_size(size, kernel_size, stride, dilation, padding), 0)
            for k in range(kernel_size):
                tap = k * dilation
                inside = [i for i in range(count) if 0 <= i * stride - before + tap < size]
                first, last = valid_range(tap, size, stride, before, count)
                assert list(range(first, last)) == inside, (size, kernel_size, stride, dilation, padding, k)


def test_window_keeps_height_and_width_apart():
    found = window(10, 7, (3, 5), 2, 1, ((1, 0), (2, 2)))
    assert (found.pad_top, found.pad_left, found.out_height, found.out_width) == (1, 2, 5, 4)
    assert (found.kernel_height, found.kernel_width, found.height, found.width) == (3, 5, 10, 7)
