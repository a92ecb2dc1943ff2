"""The record that travels with a kernel call: one row of a program, all geometry in one place."""

from __future__ import annotations

import numpy as np

from minimobile_kernels._jit import compiled

KINDS = (
    "conv2d",
    "depthwise_conv2d",
    "pointwise_conv2d",
    "average_pool2d",
    "resize_bilinear",
    "add",
    "concatenate",
    "activation",
    "pack_pixels",
)

# Offsets and strides count float32 elements. Maps in the arena are (N, H, W, C) with C padded to whole vectors:
# `x_pixel`, `y_pixel` and `out_pixel` are those padded widths.
STEP = np.dtype(
    [
        ("kind", np.int64),  # index into KINDS
        ("is_from_pixels", np.int64),  # x lies in the caller's image, not in the arena
        *[(name, np.int64) for name in ("x", "y", "out")],  # where the maps begin; y < 0: none
        *[(name, np.int64) for name in ("batch", "height", "width", "channels")],
        *[(name, np.int64) for name in ("out_height", "out_width", "out_channels")],
        *[(name, np.int64) for name in ("kernel_height", "kernel_width", "stride", "dilation")],
        *[(name, np.int64) for name in ("pad_top", "pad_left")],
        *[(name, np.int64) for name in ("x_image", "x_row", "x_pixel", "x_channel")],  # strides
        *[(name, np.int64) for name in ("y_pixel", "out_pixel", "y_channels")],
        ("weight", np.int64),  # where the packed weights begin
        ("taps", np.int64),  # where the offsets of a dense convolution's terms begin
        ("option", np.int64),  # activation: index into CURVES; resize: align_corners
        ("low", np.float32),  # the result is clamped to low..high
        ("high", np.float32),
    ]
)


@compiled
def share(count: int, unit: int, thread: int, threads: int) -> tuple[int, int]:
    """Return the part [first, last) of `count` items that falls to a thread, cut at multiples of `unit`."""
    units = (count + unit - 1) // unit
    first = units * thread // threads * unit
    last = units * (thread + 1) // threads * unit
    return min(first, count), min(last, count)
