"""Steps of the operations without weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.arithmetic import activation_range, change_of_scale, full_range
from minimobile.quantized.builder import Builder, lift, lifted_zero
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.packing import pack_scales
from minimobile_kernels.quantized.reference import ADDED_BITS, Range, Scaling, add_scalings, whole_factors
from minimobile_kernels.quantized.reference_activations import exponentials, logistic
from minimobile_kernels.quantized.reference_maps import (
    Affine,
    concatenate,
    mean_scaling,
    requantize_bytes,
    resize_points,
)
from minimobile_kernels.quantized.requantize import SCALES
from minimobile_kernels.simd import LANES


def add_average_pool2d(builder: Builder, operation: Operation) -> None:
    """Add an average over windows inside the image."""
    out = builder.tensor(operation.output)
    kernel_height, kernel_width = operation.attributes["kernel_size"]
    builder.add_step(
        "average_pool2d", operation.inputs[0], out.name, int(np.prod(out.shape)) * kernel_height * kernel_width * 4,
        activation_range(operation.attributes["activation"], out), kernel_height=kernel_height,
        kernel_width=kernel_width, stride=operation.attributes["stride"],
    )  # fmt: skip


def add_mean(builder: Builder, operation: Operation) -> None:
    """Add an average over whole images."""
    x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
    _, height, width, channels = x.shape
    count = height * width
    by = mean_scaling(change_of_scale(x, out), count)
    scales = _put_scale(builder, by, channels, bias=-count * lifted_zero(x))
    builder.add_step("mean", x.name, out.name, 4 * int(np.prod(x.shape)), scales=scales)


def add_add(builder: Builder, operation: Operation) -> None:
    """Add a sum of two maps."""
    x, y, out = (builder.tensor(name) for name in (*operation.inputs, operation.output))
    scales = (float(x.scale), float(y.scale), float(out.scale))
    if builder.bytes_of == "xnnpack":
        by_x, by_y, shift = whole_factors(scales)
        bys, bits = [_whole(by_x, 0), _whole(by_y, 0), _whole(0, -shift)], 0
    else:
        bys, bits = list(add_scalings(scales)), ADDED_BITS
    rows = [pack_scales(LANES, _repeat(by, LANES), np.zeros(1, np.int64)) for by in bys]
    for row in rows[:2]:
        row[0, SCALES.index("left")] += bits
    builder.add_step(
        "add", x.name, out.name, int(np.prod(out.shape)) * 16,
        activation_range(operation.attributes["activation"], out), y=builder.places[y.name], y_zero=lifted_zero(y),
        scales=builder.constants.put(np.concatenate(rows)),
    )  # fmt: skip


def add_resize_bilinear(builder: Builder, operation: Operation) -> None:
    """Add a bilinear resizing."""
    x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
    cost = 32 * int(np.prod(out.shape))
    places = []
    for size, out_size in zip(x.shape[1:3], out.shape[1:3], strict=True):
        points = resize_points(size, out_size, x.dtype, **operation.attributes)
        table = np.zeros((out_size, len(points)), np.int32)
        for column, values in enumerate(points):
            table[:, column] = values.view(np.int32) if values.dtype == np.float32 else values
        places.append(builder.constants.put(table))
    builder.add_step("resize_bilinear", x.name, out.name, cost, row_points=places[0], column_points=places[1])


def add_concatenate(builder: Builder, operation: Operation) -> None:
    """Add the copies of maps to their planes of another, brought to its scale."""
    out = builder.tensor(operation.output)
    target = builder.places[out.name]
    for name in operation.inputs:
        x = builder.tensor(name)
        cost = int(np.prod(x.shape))
        own, to = (Affine(tensor.scale, tensor.zero) for tensor in (x, out))
        if own == to:
            builder.add_step("pad", name, name, cost, out=target)
        else:
            table = _put_table(builder, concatenate([_every_byte(x)], [own], to, 0))
            builder.add_step("look_up", name, name, 4 * cost, out=target, table=table)
        target += builder.shape(name)[3] // LANES * builder.plane(name)


def add_quantize(builder: Builder, operation: Operation) -> None:
    """Add a change of scale, zero point or type, or what makes bytes of the caller's numbers."""
    x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
    if x.dtype == np.float32:
        scale = builder.constants.put(out.scales.view(np.int32))
        builder.add_step("quantize", out.name, out.name, 16 * int(np.prod(out.shape)), scale=scale)
        return
    every = _every_byte(x)
    found = requantize_bytes(every, x.zero, change_of_scale(x, out), full_range(out), out.dtype, builder.bytes_of)
    _add_look_up(builder, operation, found)


def add_logistic(builder: Builder, operation: Operation) -> None:
    """Add the logistic function of a map."""
    x = builder.tensor(operation.inputs[0])
    _add_look_up(builder, operation, logistic(_every_byte(x), float(x.scale), x.zero))


def add_pad(builder: Builder, operation: Operation) -> None:
    """Add zero points above, below and beside every image."""
    out = builder.tensor(operation.output)
    _, (top, _), (left, _), _ = operation.attributes["padding"]
    builder.add_step("pad", operation.inputs[0], out.name, int(np.prod(out.shape)), pad_top=top, pad_left=left)


def add_softmax(builder: Builder, operation: Operation) -> None:
    """Add softmax over the channels."""
    x = builder.tensor(operation.inputs[0])
    powers = np.stack(exponentials(float(x.scale), operation.attributes["beta"])).astype(np.int32)
    cost = 100 * int(np.prod(x.shape))
    builder.add_step("softmax", x.name, operation.output, cost, powers=builder.constants.put(powers))


def add_argmax(builder: Builder, operation: Operation, place: int) -> None:
    """Add the channel of the largest byte of every pixel, written to the result from byte `place` on."""
    x, out = builder.tensor(operation.inputs[0]), builder.tensor(operation.output)
    nothing = Range(0, 0, 0)
    cost = 16 * int(np.prod(x.shape))
    builder.add_step("argmax", x.name, x.name, cost, nothing, out=place, words=out.dtype.itemsize // 4)


def add_split(builder: Builder, name: str) -> None:
    """Add the copy of the caller's image to a map."""
    builder.add_step("split", name, name, 4 * int(np.prod(builder.shape(name))))


def add_unpack(builder: Builder, name: str, place: int) -> None:
    """Add the copy of a map to the result from byte `place` on."""
    builder.add_step("unpack", name, name, int(np.prod(builder.shape(name))), out=place)


def _add_look_up(builder: Builder, operation: Operation, results: NDArray[np.uint8] | NDArray[np.int8]) -> None:
    out = builder.tensor(operation.output)
    table = _put_table(builder, results)
    builder.add_step("look_up", operation.inputs[0], out.name, 4 * int(np.prod(out.shape)), table=table)


def _every_byte(x: Tensor) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Return all values of a tensor's type, in the order of the bytes as the kernels have them."""
    every: NDArray[np.uint8] | NDArray[np.int8] = (np.arange(256) - lift(x.dtype)).astype(x.dtype)
    return every


def _put_table(builder: Builder, results: NDArray[np.uint8] | NDArray[np.int8]) -> int:
    """Keep the results for `_every_byte`."""
    lifted = results.astype(np.int64) + lift(results.dtype)
    return builder.constants.put(lifted.astype(np.uint8))


def _put_scale(builder: Builder, by: Scaling, channels: int, bias: int) -> int:
    table = pack_scales(channels, _repeat(by, channels), np.full(channels, bias, np.int64))
    return builder.constants.put(table)


def _whole(multiplier: int, shift: int) -> Scaling:
    return Scaling(np.array([multiplier]), np.array([shift]), np.zeros(1, np.float32))


def _repeat(by: Scaling, channels: int) -> Scaling:
    """Return one scaling for every channel."""
    return Scaling(*(np.repeat(values, channels) for values in by))
