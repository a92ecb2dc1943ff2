"""Bytes moved from one layout to another: no number changes."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import inlined
from minimobile_kernels.quantized.integers import load_bytes, plus, spread, store_bytes
from minimobile_kernels.simd import LANES
from minimobile_kernels.step import share


@inlined
def pack(step: Any, image: Any, arena: Any, part: int, parts: int) -> None:
    """Copy an image into rows with all channels together and its padding around it.

    Shapes: from the caller's image (N, H, W, C), or from a map; to [N][out_height][out_width * C], bytes, of which
    what lies outside the image holds the zero point. Signed bytes get 128 added.
    """
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
        for channel in range(channels):
            plane = step.x + channel // LANES * step.x_plane + channel % LANES
            for j in range(step.width):
                arena[start + j * channels + channel] = arena[plane + (source + j) * LANES]


@inlined
def _copy(source: Any, source_start: int, target: Any, target_start: int, count: int, flip: int) -> None:
    """Copy bytes, each plus `flip` modulo 256."""
    if count < LANES:
        for byte in range(count):
            target[target_start + byte] = source[source_start + byte] ^ flip
        return
    added = spread(flip)
    byte = 0
    while byte < count:
        byte = min(byte, count - LANES)
        store_bytes(target, target_start + byte, plus(load_bytes(source, source_start + byte), added))
        byte += LANES


@inlined
def _fill(target: Any, start: int, count: int, value: int) -> None:
    if count < LANES:
        for byte in range(count):
            target[start + byte] = value
        return
    values = spread(value)
    byte = 0
    while byte < count:
        byte = min(byte, count - LANES)
        store_bytes(target, start + byte, values)
        byte += LANES
