"""What travels with a quantised kernel call: a row of a quantised program, and the arrays that it speaks of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minimobile_kernels.quantized.reference import BY_FLOATS

KINDS = (
    "conv2d", "depthwise_conv2d", "average_pool2d", "mean", "add", "resize_bilinear", "pad", "look_up", "softmax",
    "argmax", "quantize", "pack", "split", "unpack",
)  # fmt: skip
BYTES_OF = ("litert", "litert-single-rounding", *BY_FLOATS)

# Maps lie in the arena as unsigned bytes, in planes of LANES channels: [ceil(C / LANES)][N][H][W][LANES]. Signed bytes
# are kept with 128 added, and so are their zero points. A packed image lies in rows of pixels with all channels
# together, and with its padding, which holds the zero point: [N][rows][pixels of a row * C].
STEP = np.dtype(
    [
        ("kind", np.int64),  # index into KINDS
        ("parts", np.int64),  # into which the work is cut for several threads
        *[(name, np.int64) for name in ("x", "y", "out")],  # where the maps begin
        ("sums", np.int64),  # where the threads' sums begin, SUM_BYTES for each
        *[(name, np.int64) for name in ("batch", "height", "width", "channels")],
        *[(name, np.int64) for name in ("out_height", "out_width", "out_channels")],
        *[(name, np.int64) for name in ("kernel_height", "kernel_width", "stride", "dilation")],
        *[(name, np.int64) for name in ("pad_top", "pad_left")],
        *[(name, np.int64) for name in ("x_plane", "out_plane")],
        *[(name, np.int64) for name in ("x_image", "x_row", "x_pixel")],  # distances of what the windows begin at
        *[(name, np.int64) for name in ("is_from_image", "is_signed")],  # pack: from the caller's image, of int8
        # Where constants begin:
        ("scales", np.int64),  # a table of `SCALES`, int32 [plane][SCALES][LANES]
        ("panels", np.int64),  # conv2d: a `panels.Panel` for each panel, int64
        ("tile_terms", np.int64),  # conv2d in matrix registers: bytes of a pixel there, a multiple of 64; else 0
        ("filters", np.int64),  # depthwise 3x3: [plane][VISITS][column][LANES][GROUP]; else int32 [plane][tap][LANES]
        ("visits", np.int64),  # depthwise 3x3: how many of VISITS each plane needs, int64
        ("line", np.int64),  # depthwise: a line of zero points, for what lies outside the image
        ("table", np.int64),  # look_up: the byte for each byte, (256)
        ("row_points", np.int64),  # resize_bilinear: int32 [row][POINT]
        ("column_points", np.int64),  # and [column][POINT]
        ("powers", np.int64),  # softmax: two tables of int32, (256)
        ("scale", np.int64),  # quantize: a float32
        ("words", np.int64),  # argmax: of 32 bits, in an integer of the result
        ("bytes_of", np.int64),  # index into BYTES_OF
        *[(name, np.int64) for name in ("x_zero", "y_zero", "out_zero")],
        *[(name, np.int64) for name in ("low", "high")],  # the result is clamped to low..high
    ]
)


class Arrays(NamedTuple):
    """The arrays of a run, bytes of one dimension each. What a step says of places are indices into them."""

    image: Any  # the caller's
    constants: Any  # weights, tables and all else that was known before
    arena: Any  # all maps, and the sums of every thread
    result: Any  # the caller's
