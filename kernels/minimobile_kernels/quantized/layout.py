"""Bytes moved from one place and layout to another, or replaced one for one."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.planes import ceil_div, share
from minimobile_kernels.quantized.constants import VECTOR_BYTES
from minimobile_kernels.quantized.integers import exclusive_or, load_bytes, load_integers, store_bytes, store_integers
from minimobile_kernels.quantized.step import Arrays
from minimobile_kernels.simd import add, broadcast, keep_apart


@compiled
def pack(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Copy an image into rows with all channels together and its padding around it.

    Shapes: from the caller's image (N, H, W, C), or from a map; to [N][out_height][out_width * C], bytes, of which
    what lies outside the image holds the zero point. Signed bytes get 128 added.
    """
    arena, image = arrays.arena, arrays.image
    channels, flip = step.channels, 128 if step.is_signed else 0
    first, last = share(step.batch * step.out_height, 1, part, parts)
    for row in range(first, last):
        n, i = row // step.out_height, row % step.out_height - step.pad_top
        line = step.out + row * step.out_width * channels
        if not 0 <= i < step.height:
            _fill(arena, line, step.out_width * channels, step.x_zero)
            continue
        start = line + step.pad_left * channels
        end = start + step.width * channels
        _fill(arena, line, step.pad_left * channels, step.x_zero)
        _fill(arena, end, line + step.out_width * channels - end, step.x_zero)
        source = (n * step.height + i) * step.width
        if step.is_from_image:
            _copy(image, source * channels, arena, start, step.width * channels, flip)
            continue
        _join(arena, step.x + source * LANES, step.x_plane, channels, start, step.width)


@compiled
def _join(arena: Any, x: int, x_plane: int, channels: int, start: int, width: int) -> None:
    """Copy a row of a map to a row of pixels with all channels together."""
    keep_apart()
    for j in range(width):
        for channel in range(channels):
            arena[start + j * channels + channel] = arena[x + channel // LANES * x_plane + j * LANES + channel % LANES]


@compiled
def split(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Copy the caller's image (N, H, W, C) to a map; what its last plane has beyond C channels is left as it is."""
    first, last = share(step.batch * step.height * step.width, 1, part, parts)
    _split(step, arrays, first, last)


@compiled
def _split(step: Any, arrays: Arrays, first: int, last: int) -> None:
    keep_apart()
    image, arena, channels, out, out_plane = arrays.image, arrays.arena, step.channels, step.out, step.out_plane
    flip = 128 if step.is_signed else 0
    for pixel in range(first, last):
        for channel in range(channels):
            target = out + channel // LANES * out_plane + pixel * LANES + channel % LANES
            arena[target] = image[pixel * channels + channel] ^ flip


@compiled
def unpack(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Copy a map to the caller's result: (N, H, W, C) from `step.out` on; signed bytes lose their 128 again."""
    channels, flip = step.channels, 128 if step.is_signed else 0
    pixels = step.batch * step.height * step.width
    first, last = share(pixels, 1, part, parts)
    for channel in range(0, channels, LANES):
        plane = step.x + channel // LANES * step.x_plane
        count = min(LANES, channels - channel)
        for pixel in range(first, last):
            _copy(
                arrays.arena, plane + pixel * LANES, arrays.result, step.out + pixel * channels + channel, count, flip
            )


@compiled
def pad(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Copy a map to another, with zero points around every image. Defined by reference_maps.pad."""
    arena, planes = arrays.arena, ceil_div(step.channels, LANES)
    rows = step.batch * step.out_height
    first, last = share(planes * rows, 1, part, parts)
    size, line = step.width * LANES, step.out_width * LANES
    for item in range(first, last):
        plane, n, i = item // rows, item % rows // step.out_height, item % step.out_height - step.pad_top
        target = step.out + plane * step.out_plane + item % rows * line
        if not 0 <= i < step.height:
            _fill(arena, target, line, step.out_zero)
            continue
        start = target + step.pad_left * LANES
        _fill(arena, target, start - target, step.out_zero)
        _copy(arena, step.x + plane * step.x_plane + (n * step.height + i) * size, arena, start, size, 0)
        _fill(arena, start + size, target + line - start - size, step.out_zero)


@compiled
def look_up(step: Any, arrays: Arrays, part: int, parts: int) -> None:
    """Replace every byte of a map by what a table of 256 has for it."""
    first, last = share(ceil_div(step.channels, LANES) * step.batch * step.height * step.width, 1, part, parts)
    _look_up(step, arrays, first * LANES, last * LANES)


@compiled
def _look_up(step: Any, arrays: Arrays, first: int, last: int) -> None:
    keep_apart()
    arena, tables, table, x, out = arrays.arena, arrays.constants, step.table, step.x, step.out
    for byte in range(first, last):
        arena[out + byte] = tables[table + arena[x + byte]]


@compiled
def _copy(source: Any, source_start: int, target: Any, target_start: int, count: int, flip: int) -> None:
    """Copy bytes, each plus `flip` modulo 256: 128 or nothing."""
    keep_apart()
    if count < LANES:
        for byte in range(count):
            target[target_start + byte] = source[source_start + byte] ^ flip
        return
    byte, size = 0, VECTOR_BYTES if count >= VECTOR_BYTES else LANES
    added, flipped = broadcast(flip), broadcast(flip * 0x01010101)
    while byte < count:
        byte = min(byte, count - size)
        if size == VECTOR_BYTES:
            vector = load_integers(source, source_start + byte)
            store_integers(target, target_start + byte, exclusive_or(vector, flipped))
        else:
            store_bytes(target, target_start + byte, add(load_bytes(source, source_start + byte), added))
        byte += size


@compiled
def _fill(target: Any, start: int, count: int, value: int) -> None:
    keep_apart()
    if count < LANES:
        for byte in range(count):
            target[start + byte] = value
        return
    values = broadcast(value)
    byte = 0
    while byte < count:
        byte = min(byte, count - LANES)
        store_bytes(target, start + byte, values)
        byte += LANES
