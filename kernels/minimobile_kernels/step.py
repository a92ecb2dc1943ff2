"""What travels with a kernel call: a row of a program, the arrays that it speaks of, and places in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

KINDS = (
    "conv2d",
    "depthwise_conv2d",
    "pointwise_conv2d",
    "average_pool2d",
    "resize_bilinear",
    "add",
    "concatenate",
    "activation",
    "fake_quantize",
    "pack_pixels",
)

PANEL_VECTORS = 2  # of output channels: so many vectors of a convolution's weights lie together
LINE = 8  # int64 of a cache line
ENTRIES = 2 * LINE  # of `control` for each step and thread: its parts claimed, and on another line parts it has done

# Offsets and strides count float32 elements. A map in the arena lies in planes of LANES channels,
# [ceil(C / LANES)][N][H][W][LANES]: channel c of pixel p is at (c // LANES) * plane + p * LANES + c % LANES, where p
# counts the pixels of all images and plane = N*H*W*LANES. Channels beyond C are there and hold nothing of meaning.
STEP = np.dtype(
    [
        ("kind", np.int64),  # index into KINDS
        ("is_from_pixels", np.int64),  # conv2d, pack_pixels: x lies in the caller's image, not in the arena
        ("parts", np.int64),  # into which the work is cut for several threads
        ("is_fused", np.int64),  # this convolution is done by the one after it
        # Where the maps begin; y < 0: none. What a fused step makes, the next one's x, lies in a thread's own memory.
        *[(name, np.int64) for name in ("x", "y", "out")],
        *[(name, np.int64) for name in ("batch", "height", "width", "channels")],
        *[(name, np.int64) for name in ("out_height", "out_width", "out_channels")],
        *[(name, np.int64) for name in ("kernel_height", "kernel_width", "stride", "dilation")],
        *[(name, np.int64) for name in ("pad_top", "pad_left")],
        *[(name, np.int64) for name in ("x_plane", "y_plane", "out_plane")],
        *[(name, np.int64) for name in ("x_image", "x_row", "x_pixel", "x_channel")],  # of the caller's image
        ("y_channels", np.int64),
        ("block", np.int64),  # conv2d, pointwise_conv2d: terms in one chain; 16 times some number, or all
        ("weight", np.int64),  # where the packed weights begin
        ("is_finite", np.int64),  # all weights are: a tap times zero is zero
        ("taps", np.int64),  # where the offsets of a dense convolution's terms begin
        ("scratch_size", np.int64),  # of what a fused step before makes; x is its place in the first thread's memory
        ("scratch_distance", np.int64),  # from there to its place in the next thread's
        ("rows", np.int64),  # pointwise_conv2d that does two others: rows of a band
        ("curve", np.int64),  # activation: index into CURVES; < 0: the clamp alone
        ("align_corners", np.int64),  # resize_bilinear
        ("is_single", np.int64),  # average_pool2d: summed in float32, rounded at every term
        ("low", np.float32),  # the result is clamped to low..high
        ("high", np.float32),
        ("scale", np.float32),  # fake_quantize: the step of its grid
        ("zero", np.float32),  # and how many steps above low lies 0
    ]
)


class Arrays(NamedTuple):
    """The arrays of a run, of one dimension each. What a step says of places are indices into them."""

    pixels: Any  # the caller's image, float32
    weights: Any  # of all convolutions, float32
    arena: Any  # all maps, float32
    taps: Any  # the offsets of dense convolutions' terms, int64


class Map(NamedTuple):
    """Some pixels of a map, or all: where the first one's first plane begins, and how far its planes are apart."""

    start: int
    plane: int
