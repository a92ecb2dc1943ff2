"""Output sizes and padding along one axis of an image: the only place that does padding arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

AxisPadding: TypeAlias = "str | tuple[int, int]"
Padding: TypeAlias = "str | tuple[tuple[int, int], tuple[int, int]]"


def axis_padding(padding: Padding, axis: int) -> AxisPadding:
    """Return the padding of one axis (0: height, 1: width) of a padding given for both."""
    return padding if isinstance(padding, str) else padding[axis]


def pad_amounts(size: int, kernel_size: int, stride: int, dilation: int, padding: AxisPadding) -> tuple[int, int]:
    """Return how many zero pixels come before and after `size` pixels.

    "SAME" is TensorFlow's rule: just enough for ceil(size / stride) outputs, the odd one after. "VALID" pads nothing;
    a pair (before, after) is taken as it is. Source: TensorFlow, `tf.nn.convolution`, section "Padding".

    >>> pad_amounts(224, 3, 2, 1, "SAME"), pad_amounts(225, 3, 2, 1, "SAME")
    ((0, 1), (1, 1))
    """
    if isinstance(padding, str):
        if padding == "VALID":
            return 0, 0
        assert padding == "SAME", padding
        reach = (kernel_size - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2
    before, after = padding
    return int(before), int(after)


def output_size(size: int, kernel_size: int, stride: int, dilation: int, padding: AxisPadding) -> int:
    """Return how many windows fit: floor((before + size + after - reach) / stride) + 1.

    >>> output_size(224, 3, 2, 1, "SAME"), output_size(7, 7, 2, 1, "VALID")
    (112, 1)
    """
    before, after = pad_amounts(size, kernel_size, stride, dilation, padding)
    reach = (kernel_size - 1) * dilation + 1
    return (before + size + after - reach) // stride + 1


def valid_range(tap: int, size: int, stride: int, before: int, out_size: int) -> tuple[int, int]:
    """Return the outputs [first, last) for which the tap at offset `tap` (dilation included) lies inside the image.

    Output i reads input i * stride - before + tap.

    >>> valid_range(0, 5, 2, 1, 3)
    (1, 3)
    """
    first = max(0, -(-(before - tap) // stride))
    last = min(out_size, (size - 1 + before - tap) // stride + 1)
    return first, max(first, last)


class Window(NamedTuple):
    """A sliding window over both axes, ready for an image of one size.

    Fields: kernel, stride, dilation of both axes together; padding before; sizes of input and output.
    """

    kernel_height: int
    kernel_width: int
    stride: int
    dilation: int
    pad_top: int
    pad_left: int
    height: int
    width: int
    out_height: int
    out_width: int


def window(
    height: int, width: int, kernel_size: tuple[int, int], stride: int, dilation: int, padding: Padding
) -> Window:
    """Return the `Window` of a convolution or pooling over a height x width image."""
    top, left = (
        pad_amounts(size, kernel_size[axis], stride, dilation, axis_padding(padding, axis))[0]
        for axis, size in enumerate((height, width))
    )
    out_height, out_width = (
        output_size(size, kernel_size[axis], stride, dilation, axis_padding(padding, axis))
        for axis, size in enumerate((height, width))
    )
    return Window(*kernel_size, stride, dilation, top, left, height, width, out_height, out_width)


def taps(window: Window) -> Iterator[tuple[int, int, slice, slice, tuple[slice, slice]]]:
    """Yield, tap by tap in the order ky, kx: the output rows and columns that it reaches, and what it reads for them.

    >>> ky, kx, rows, columns, source = next(taps(window(5, 4, (3, 3), 2, 1, "SAME")))
    >>> ky, kx, rows, columns, source  # the first row of windows begins above the image, the first column on it
    (0, 0, slice(1, 3, None), slice(0, 2, None), (slice(1, 5, 2), slice(0, 4, 2)))
    """
    for ky in range(window.kernel_height):
        down = ky * window.dilation
        rows, source_rows = _reach(down, window.height, window.stride, window.pad_top, window.out_height)
        for kx in range(window.kernel_width):
            right = kx * window.dilation
            columns, source_columns = _reach(right, window.width, window.stride, window.pad_left, window.out_width)
            yield ky, kx, rows, columns, (source_rows, source_columns)


def _reach(tap: int, size: int, stride: int, before: int, out_size: int) -> tuple[slice, slice]:
    first, last = valid_range(tap, size, stride, before, out_size)
    start = first * stride - before + tap
    return slice(first, last), slice(start, start + (last - first) * stride, stride) if last > first else slice(0, 0)
