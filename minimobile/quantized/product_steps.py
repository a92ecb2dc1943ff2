"""Steps of convolutions and fully connected layers: weights in the kernels' order, and which bytes they meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.arithmetic import activation_range, product_scaling
from minimobile.quantized.builder import Builder, as_image, lifted_zero, values_of
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.packing import pack_filters, pack_panels, pack_plain_filters, pack_scales
from minimobile_kernels.geometry import Window, window
from minimobile_kernels.quantized.byte_filter import LINE_PIXELS
from minimobile_kernels.quantized.integers import GROUP
from minimobile_kernels.quantized.reference import Scaling
from minimobile_kernels.simd import LANES

SLACK = 64  # bytes that a tile may read beyond a packed image


def is_packing(operation: Operation, network: Network) -> bool:
    """Say whether the windows of a convolution are more than single pixels, side by side."""
    _, *kernel_size, _ = network.tensors[operation.inputs[1]].shape
    shapes = [network.tensors[name].shape for name in (operation.inputs[0], operation.output)]
    same_size = shapes[0][1:3] == shapes[1][1:3]
    return (kernel_size, operation.attributes["stride"], same_size) != ([1, 1], 1, True)


def add_conv2d(builder: Builder, operation: Operation) -> None:
    """Add a convolution: a product of a map's pixels and a matrix, or of the windows of an image that is packed first.

    The image is the caller's where the input has no place in the arena.
    """
    x, weight, bias, out = _operands(builder, operation)
    _, kernel_height, kernel_width, channels = weight.shape
    values = values_of(weight).astype(np.int64) - weight.zero_points.reshape(-1, *[1] * 3)
    if not is_packing(operation, builder.network):
        _add_product(builder, operation, values.reshape(len(values), channels), bias)
        return
    slide = _window(operation, x.shape, (kernel_height, kernel_width))
    # Rows with all channels together: a row of the window is one stretch of bytes, or, dilated, several.
    stretch = kernel_width * channels if slide.dilation == 1 else channels
    per_row = 1 if slide.dilation == 1 else kernel_width
    padded = -(-stretch // GROUP) * GROUP
    rows = np.zeros((len(values), kernel_height * per_row, padded), np.int64)
    rows[:, :, :stretch] = values.reshape(len(values), kernel_height * per_row, stretch)
    height = (slide.out_height - 1) * slide.stride + (kernel_height - 1) * slide.dilation + 1
    width = (slide.out_width - 1) * slide.stride + (kernel_width - 1) * slide.dilation + 1
    height, width = max(height, slide.pad_top + x.shape[1]), max(width, slide.pad_left + x.shape[2])
    packed = f"{out.name} packed"
    builder.reserve(packed, x.shape[0] * height * width * channels + SLACK)
    place = builder.places[packed]
    is_from_image = x.name not in builder.places
    source = builder.tensor(builder.network.inputs[0]) if is_from_image else x
    builder.add_step(
        "pack", x.name, x.name, x.shape[0] * height * width * channels, out=place, out_height=height, out_width=width,
        pad_top=slide.pad_top, pad_left=slide.pad_left, is_from_image=int(is_from_image),
        is_signed=int(source.dtype == np.int8),
    )  # fmt: skip
    line = width * channels
    taps = [
        (ky * line + kx * channels) * slide.dilation + byte
        for ky in range(kernel_height)
        for kx in range(per_row)
        for byte in range(0, padded, GROUP)
    ]
    builder.add_step(
        "conv2d", x.name, out.name, values.size * slide.out_height * slide.out_width,
        activation_range(operation.attributes["activation"], out), x=place, x_image=height * line, x_row=line,
        x_pixel=slide.stride * channels, stride=slide.stride,
        **_put_panels(builder, rows.reshape(len(values), -1), np.array(taps)),
        **_put_scales(builder, x, weight, out, bias, values.reshape(len(values), -1).sum(1)),
    )  # fmt: skip


def add_fully_connected(builder: Builder, operation: Operation) -> None:
    """Add a product of the rows of a matrix, single pixels, and the weights."""
    _, weight, bias, _ = _operands(builder, operation)
    _add_product(builder, operation, values_of(weight).astype(np.int64) - weight.zero_points.reshape(-1, 1), bias)


def _add_product(builder: Builder, operation: Operation, values: NDArray[np.int64], bias: NDArray[np.int64]) -> None:
    """Add a product of a map's pixels and a matrix (C_out, C_in): all pixels are one row."""
    x, weight, _, out = _operands(builder, operation)
    n, height, width, channels = builder.shape(x.name)
    padded = np.zeros((len(values), -(-channels // GROUP) * GROUP), np.int64)
    padded[:, :channels] = values
    first = np.arange(0, channels, GROUP)
    builder.add_step(
        "conv2d", x.name, out.name, values.size * n * height * width,
        activation_range(operation.attributes["activation"], out), batch=1, out_height=1, out_width=n * height * width,
        x_pixel=LANES, **_put_panels(builder, padded, first // LANES * builder.plane(x.name) + first % LANES),
        **_put_scales(builder, x, weight, out, bias, values.sum(1)),
    )  # fmt: skip


def add_depthwise_conv2d(builder: Builder, operation: Operation) -> None:
    """Add a depthwise convolution."""
    x, weight, bias, out = _operands(builder, operation)
    _, kernel_height, kernel_width, _ = weight.shape
    slide = _window(operation, x.shape, (kernel_height, kernel_width))
    values = values_of(weight)[0].astype(np.int64) - weight.zero_points.reshape(1, 1, -1)
    constants = builder.constants
    if (kernel_height, kernel_width) == (3, 3):
        filters, visits = pack_filters(values)
        places = {"filters": constants.put(filters), "visits": constants.put(visits)}
    else:
        places = {"filters": constants.put(pack_plain_filters(values))}
    line = np.full(LINE_PIXELS * LANES, lifted_zero(x), np.uint8)
    builder.add_step(
        "depthwise_conv2d", x.name, out.name, 4 * values.size * slide.out_height * slide.out_width,
        activation_range(operation.attributes["activation"], out), kernel_height=kernel_height,
        kernel_width=kernel_width, stride=slide.stride, dilation=slide.dilation, pad_top=slide.pad_top,
        pad_left=slide.pad_left, line=constants.put(line), **places,
        **_put_scales(builder, x, weight, out, bias, values.sum((0, 1))),
    )  # fmt: skip


def _operands(builder: Builder, operation: Operation) -> tuple[Tensor, Tensor, NDArray[np.int64], Tensor]:
    """Return x, weight, the values of the bias, and the output of a product."""
    x, weight = (builder.tensor(name) for name in operation.inputs[:2])
    out = builder.tensor(operation.output)
    if len(operation.inputs) > 2:
        return x, weight, values_of(builder.tensor(operation.inputs[2])).astype(np.int64), out
    return x, weight, np.zeros(as_image(out.shape)[3], np.int64), out


def _put_panels(builder: Builder, values: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, int]:
    """Keep the weights (C_out, groups * GROUP); the bytes of group g lie `offsets[g]` from a pixel's first."""
    constants = builder.constants
    rows = []
    for panel in pack_panels(values):
        first = constants.put(offsets[panel.groups])
        rows.append((first, len(panel.groups), constants.put(panel.weights)))
    return {"panels": constants.put(np.array(rows, np.int64))}


def _put_scales(
    builder: Builder, x: Tensor, weight: Tensor, out: Tensor, bias: NDArray[np.int64], totals: NDArray[np.int64]
) -> dict[str, int]:
    """Keep how sums come to bytes. The bias takes in what the zero point of x adds, by the sums of the weights."""
    channels = len(totals)
    by = Scaling(*(np.broadcast_to(values, channels) for values in product_scaling(x, weight, out)))
    table = pack_scales(channels, by, bias - lifted_zero(x) * totals)
    is_simple = builder.bytes_of == "litert" and bool((by.shift < 0).all())
    return {"scales": builder.constants.put(table), "is_simple": int(is_simple)}


def _window(operation: Operation, shape: Sequence[int], kernel_size: tuple[int, int]) -> Window:
    attributes = operation.attributes
    return window(shape[1], shape[2], kernel_size, attributes["stride"], attributes["dilation"], attributes["padding"])
