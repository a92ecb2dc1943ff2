"""The compiled kernels with the names and signatures of their definitions in `reference.py`: the twins' adapter.

A kernel takes a step and the arrays that it speaks of; a definition takes maps (N, H, W, C). Each function here lays
its maps out as the kernels want them, runs a program of one step, without a graph or an engine, and reads the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile_kernels import entries
from minimobile_kernels.elementwise import CLAMPS, CURVES
from minimobile_kernels.geometry import Window
from minimobile_kernels.host import LANES
from minimobile_kernels.reference import BLOCK, Grid
from minimobile_kernels.step import KINDS, STEP
from minimobile_kernels.tile import PANEL

Array = NDArray[Any]
NOTHING = np.zeros(1, np.float32)


def conv2d(
    x: Array, weight: Array, bias: Array, window: Window, block: int = BLOCK, factor: Array | None = None
) -> Array:
    """Read x as the caller's image, channels last."""
    height, width, channels = x.shape[1:]
    taps = [
        ky * window.dilation * width * channels + kx * window.dilation * channels + ci
        for ky in range(window.kernel_height)
        for kx in range(window.kernel_width)
        for ci in range(channels)
    ]
    strides = {"x_image": height * width * channels, "x_row": width * channels, "x_pixel": channels, "x_channel": 1}
    fields = {"is_from_pixels": 1, "block": block, **strides, **_window_fields(window)}
    shape = (x.shape[0], window.out_height, window.out_width, len(weight))
    packed = _pack(weight.reshape(len(weight), -1).T, bias, factor, PANEL)
    return _run("conv2d", x, shape, weights=packed, taps=np.array(taps), **fields)


def depthwise_conv2d(x: Array, weight: Array, bias: Array, window: Window, factor: Array | None = None) -> Array:
    """Filter every channel; weights that are not finite take the kernel that skips taps."""
    shape = (x.shape[0], window.out_height, window.out_width, x.shape[3])
    packed = _pack(weight.reshape(-1, x.shape[3]), bias, factor, LANES)
    is_finite = int(np.isfinite(packed).all())
    return _run("depthwise_conv2d", x, shape, weights=packed, is_finite=is_finite, **_window_fields(window))


def pointwise_conv2d(x: Array, weight: Array, bias: Array, block: int = BLOCK, factor: Array | None = None) -> Array:
    """Mix the channels of every pixel."""
    packed = _pack(weight.T, bias, factor, PANEL)
    return _run("pointwise_conv2d", x, (*x.shape[:3], len(weight)), weights=packed, block=block)


def average_pool2d(x: Array, window: Window, precision: str = "float64") -> Array:
    """Average over windows."""
    shape = (x.shape[0], window.out_height, window.out_width, x.shape[3])
    return _run("average_pool2d", x, shape, is_single=int(precision == "float32"), **_window_fields(window))


def resize_bilinear(x: Array, height: int, width: int, align_corners: bool) -> Array:
    """Resize."""
    shape = (x.shape[0], height, width, x.shape[3])
    return _run("resize_bilinear", x, shape, align_corners=int(align_corners))


def add(x: Array, y: Array) -> Array:
    """Add two maps."""
    return _run("add", x, x.shape, y=y)


def concatenate(x: Array, y: Array) -> Array:
    """Stack their channels."""
    return _run("concatenate", x, (*x.shape[:3], x.shape[3] + y.shape[3]), y=y)


def activation(x: Array, function: str) -> Array:
    """Apply a curve, or the limits of a clamp."""
    low, high = CLAMPS.get(function, CLAMPS["linear"])
    curve = CURVES.index(function) if function in CURVES else -1
    return _run("activation", x, x.shape, curve=curve, low=low, high=high)


def fake_quantize(x: Array, grid: Grid) -> Array:
    """Round to a grid."""
    return _run("fake_quantize", x, x.shape, low=grid.low, high=grid.high, scale=grid.step, zero=grid.zero)


def _window_fields(window: Window) -> dict[str, int]:
    names = ("kernel_height", "kernel_width", "stride", "dilation", "pad_top", "pad_left")
    return {name: getattr(window, name) for name in names}


def _pack(rows: Array, bias: Array, factor: Array | None, panel: int) -> Array:
    """Return [panels][terms + 2][channels of the panel], factor and bias last; `rows` is (terms, C)."""
    channels = -(-rows.shape[1] // LANES) * LANES
    table = np.zeros((len(rows) + 2, channels), np.float32)
    table[:-2, : rows.shape[1]], table[-1, : len(bias)] = rows, bias
    table[-2, : len(bias)] = 1 if factor is None else factor
    return np.concatenate([table[:, first : first + panel].ravel() for first in range(0, channels, panel)])


def _planes(x: Array) -> Array:
    """Return a map as the arena holds it, [planes][N][H][W][LANES]; channels beyond the last hold a NaN."""
    n, height, width, channels = x.shape
    padded = np.full((n, height, width, -(-channels // LANES) * LANES), np.nan, np.float32)
    padded[..., :channels] = x
    return padded.reshape(n, height, width, -1, LANES).transpose(3, 0, 1, 2, 4).copy()


def _run(
    kind: str, x: Array, shape: tuple[int, ...], *, y: Array | None = None, weights: Array = NOTHING,
    taps: Array | None = None, **fields: Any,
) -> Array:  # fmt: skip
    """Run one step on maps that lie in the arena one after the other."""
    maps = [_planes(x), _planes(np.zeros(shape, np.float32)), *([] if y is None else [_planes(y)])]
    starts = np.cumsum([0, *(values.size for values in maps)])
    step = np.zeros(1, STEP)
    values = {
        "kind": KINDS.index(kind), "parts": 1, "x": 0, "out": starts[1], "y": -1 if y is None else starts[2],
        "batch": x.shape[0], "height": x.shape[1], "width": x.shape[2], "channels": x.shape[3],
        "out_height": shape[1], "out_width": shape[2], "out_channels": shape[3], "x_plane": maps[0][0].size,
        "out_plane": maps[1][0].size, "low": -np.inf, "high": np.inf,
    }  # fmt: skip
    if y is not None:
        values |= {"y_plane": maps[2][0].size, "y_channels": y.shape[3]}
    for name, value in {**values, **fields}.items():
        step[name] = value
    arena, control = np.concatenate([values.ravel() for values in maps]), np.zeros(1, np.int64)
    offsets = np.zeros(1, np.int64) if taps is None else taps.astype(np.int64)
    pixels = np.ascontiguousarray(x, np.float32).ravel()
    entries.run(step, pixels, weights, arena, offsets, control, control, 1, 0)
    found = arena[starts[1] : starts[2]].reshape(maps[1].shape)  # [planes][N][H][W][LANES]
    return found.transpose(1, 2, 3, 0, 4).reshape(*shape[:3], -1)[..., : shape[3]]
