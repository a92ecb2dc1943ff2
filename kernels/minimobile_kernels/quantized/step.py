"""The record of a quantised kernel call: one row of a quantised program."""

from __future__ import annotations

import numpy as np

KINDS = (
    "conv2d", "depthwise_conv2d", "average_pool2d", "mean", "add", "resize_bilinear", "pad", "look_up", "softmax",
    "argmax", "quantize", "pack", "split", "unpack",
)  # fmt: skip
ROUNDINGS = ("double", "single", "float")

# Maps lie in the arena as unsigned bytes, in planes of LANES channels: [ceil(C / LANES)][N][H][W][LANES]. Signed bytes
# are kept with 128 added, and so are their zero points. A packed image lies in rows of pixels with all channels
# together, and with its padding, which holds the zero point: [N][rows][pixels of a row * C].
STEP = np.dtype(
    [
        ("kind", np.int64),  # index into KINDS
        ("parts", np.int64),  # into which the work is cut for several threads
        *[(name, np.int64) for name in ("x", "y", "out")],  # where the maps begin
        *[(name, np.int64) for name in ("batch", "height", "width", "channels")],
        *[(name, np.int64) for name in ("out_height", "out_width", "out_channels")],
        *[(name, np.int64) for name in ("kernel_height", "kernel_width", "stride", "dilation")],
        *[(name, np.int64) for name in ("pad_top", "pad_left")],
        *[(name, np.int64) for name in ("x_plane", "out_plane")],
        *[(name, np.int64) for name in ("x_image", "x_row", "x_pixel")],  # distances of what the windows begin at
        *[(name, np.int64) for name in ("is_from_image", "is_signed")],  # pack: from the caller's image, of int8
        ("panels", np.int64),  # convolution: where the table of panels begins: [panel][first tap, groups, weights]
        # Depthwise 3x3: where the filters begin in the weights, [plane][VISITS][column][LANES][GROUP], and in the taps
        # the number of visits per plane; other sizes: where they begin in the scales, [plane][K_h * K_w][LANES].
        *[(name, np.int64) for name in ("filters", "visits")],
        ("line", np.int64),  # depthwise: where a line of zero points begins, for what lies outside the image
        ("table", np.int64),  # look_up: where the byte for each byte begins, (256)
        *[(name, np.int64) for name in ("row_points", "column_points")],  # resizing: where they begin in the scales
        ("words", np.int64),  # argmax: of 32 bits, in an integer of the result
        # Where the table of `requantize.SCALES` begins, [plane][SCALES][LANES]; or softmax's, or one scale.
        ("scales", np.int64),
        ("rounding", np.int64),  # index into ROUNDINGS
        ("is_simple", np.int64),  # rounded twice, without shifts to the left, and nothing below the zero point survives
        *[(name, np.int64) for name in ("x_zero", "y_zero", "out_zero")],
        *[(name, np.int64) for name in ("low", "high")],  # the result is clamped to low..high
    ]
)
