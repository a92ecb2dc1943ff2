"""The kernels of quantised networks, on maps of bytes: convolutions, pooling, sums."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import compiled, inlined
from minimobile_kernels.byte_filter import VISITS, make_byte_filter
from minimobile_kernels.dot_tile import TILE_PIXELS, make_dot_tile
from minimobile_kernels.integers import (
    GROUP,
    limit,
    load_bytes,
    load_integers,
    plus,
    scale_twice_rounded,
    spread,
    store_bytes,
    store_integers,
)
from minimobile_kernels.requantize import SCALES, requantize
from minimobile_kernels.simd import LANES, REGISTERS, keep_apart
from minimobile_kernels.step import plane_count, share
from minimobile_kernels.tile import PANEL_VECTORS

LARGE, SMALL, _ = TILE_PIXELS
BAND_BYTES = 1 << 18  # of x that stays in the second-level cache while all panels pass over it
PANEL_TABLE = 3  # first tap, number of groups, where the weights begin

_large = make_dot_tile(LARGE, PANEL_VECTORS)
_small = make_dot_tile(SMALL, PANEL_VECTORS)
_single = make_dot_tile(1, PANEL_VECTORS)
_largest_half = make_dot_tile(2 * LARGE, 1)
_large_half = make_dot_tile(LARGE, 1)
_small_half = make_dot_tile(SMALL, 1)
_single_half = make_dot_tile(1, 1)

FILTER_ROWS = 2 if REGISTERS == 32 else 1
WIDE, NARROW, TINY = 8, 4, 3  # outputs of a depthwise tile

_wide_1 = make_byte_filter(FILTER_ROWS, WIDE, 1, 1)
_wide_2 = make_byte_filter(FILTER_ROWS, WIDE, 2, 1)
_narrow_1 = make_byte_filter(FILTER_ROWS, NARROW, 1, 1)
_narrow_2 = make_byte_filter(FILTER_ROWS, NARROW, 2, 1)
_tiny = make_byte_filter(FILTER_ROWS, TINY, 1, VISITS)
_any = make_byte_filter(1, 1, None, 1)
_wide_twice_1 = make_byte_filter(FILTER_ROWS, WIDE, 1, 2)
_wide_twice_2 = make_byte_filter(FILTER_ROWS, WIDE, 2, 2)
_narrow_often_1 = make_byte_filter(FILTER_ROWS, NARROW, 1, VISITS)
_narrow_often_2 = make_byte_filter(FILTER_ROWS, NARROW, 2, VISITS)
_any_often = make_byte_filter(1, 1, None, VISITS)


@inlined
def conv2d(step: Any, x: Any, weights: Any, scales: Any, taps: Any, arena: Any, sums: Any, part: int, parts: int,
           thread: int) -> None:  # fmt: skip
    """Convolve maps of bytes: a dense convolution of a packed image, or a pointwise one of a map.

    Defined by quantized_reference.conv2d. A pointwise convolution is one long row of pixels.

    Shapes: x: a packed image or a map; weights in panels, [groups][channels of the panel][GROUP] signed bytes, and for
    every panel the offsets of its groups in `taps`: where a weight minus its zero point is too large for a byte, its
    group is there a second time for what is left.
    """
    rows = step.batch * step.out_height
    panels = plane_count(step.out_channels, PANEL_VECTORS * LANES)
    if rows == 1:  # one long row of pixels: pieces of it, or, where it is short, panels of channels
        if step.out_width < 8 * LARGE * parts and panels >= parts:
            first_panel, last_panel = share(panels, 1, part, parts)
            first, last = 0, step.out_width
        else:
            first_panel, last_panel = 0, panels
            first, last = share(step.out_width, LARGE, part, parts)
        band = max(BAND_BYTES // step.channels // LARGE, 1) * LARGE
        for start in range(first, last, band):
            count = min(band, last - start)
            for panel in range(first_panel, last_panel):
                _convolve(step, x, step.x + start * step.x_pixel, weights, scales, taps, arena,
                          step.out + start * LANES, count, panel, sums, thread)  # fmt: skip
        return
    first, last = share(rows, 1, part, parts)
    for row in range(first, last):
        n, i = row // step.out_height, row % step.out_height
        for panel in range(panels):
            _convolve(step, x, step.x + n * step.x_image + i * step.stride * step.x_row, weights, scales, taps, arena,
                      step.out + row * step.out_width * LANES, step.out_width, panel, sums, thread)  # fmt: skip


@compiled
def _convolve(
    step: Any, x: Any, x_start: int, weights: Any, scales: Any, taps: Any, arena: Any, out: int, count: int,
    panel: int, sums: Any, thread: int,
) -> None:  # fmt: skip
    """Compute `count` neighbouring pixels of one panel of output channels.

    What is left at the end is covered by a tile that overlaps the one before and computes the same bytes again.
    """
    keep_apart()
    table = step.panels + panel * PANEL_TABLE
    first, groups, weight = taps[table], taps[table + 1], taps[table + 2]
    planes = plane_count(step.out_channels, LANES)
    plane = panel * PANEL_VECTORS
    vectors = min(PANEL_VECTORS, planes - plane)
    is_half = vectors < PANEL_VECTORS
    place = thread * (LARGE * PANEL_VECTORS * LANES)
    x_step = step.x_pixel
    pixel = 0
    while pixel < count:
        size = 2 * LARGE if is_half and count - pixel >= 2 * LARGE else LARGE
        if count - pixel < LARGE:
            size = SMALL if count >= SMALL else 1
            pixel = min(pixel, count - size)
        source = x_start + pixel * x_step
        if size == 2 * LARGE:
            _largest_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == LARGE and is_half:
            _large_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == LARGE:
            _large(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == SMALL and is_half:
            _small_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif size == SMALL:
            _small(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        elif is_half:
            _single_half(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        else:
            _single(x, source, x_step, taps, first, groups, weights, weight, sums, place)
        target = out + plane * step.out_plane + pixel * LANES
        requantize(step, sums, place, 1, 0, size, vectors * LANES, plane, vectors, scales, arena, target, 0)
        pixel += size


@inlined
def depthwise_conv2d(
    step: Any, weights: Any, lines: Any, scales: Any, taps: Any, arena: Any, sums: Any, part: int, parts: int,
    thread: int,
) -> None:  # fmt: skip
    """Convolve each channel of a map of bytes with its own filter. Defined by quantized_reference.depthwise_conv2d.

    Shapes: 3x3 filters in `weights`, others in `scales`, as `quantized_step.STEP` says; lines: bytes, zero points.
    """
    planes = plane_count(step.channels, LANES)
    rows = step.batch * step.out_height
    first, last = share(planes * rows, 1, part, parts)
    while first < last:
        plane, n, i = first // rows, first % rows // step.out_height, first % step.out_height
        count = min(last - first, step.out_height - i)
        _filter_rows(step, weights, lines, scales, taps, arena, plane, n, i, i + count, sums, thread)
        first += count


@compiled
def _filter_rows(
    step: Any, weights: Any, lines: Any, scales: Any, taps: Any, arena: Any, plane: int, n: int, first: int, last: int,
    sums: Any, thread: int,
) -> None:  # fmt: skip
    """Compute the output rows [first, last) of image n for one plane of channels.

    Where tiles do not fit the rows or columns, the last ones overlap those before and compute the same bytes again.
    """
    keep_apart()
    stride, dilation, out_width, x_row = step.stride, step.dilation, step.out_width, step.width * LANES
    height, width, line = step.height, step.width, step.line
    image = step.x + plane * step.x_plane + n * height * x_row
    out = step.out + plane * step.out_plane + n * step.out_height * out_width * LANES
    place = thread * (LARGE * PANEL_VECTORS * LANES)
    is_3x3 = step.kernel_height == 3 and step.kernel_width == 3
    if is_3x3:
        weight = step.filters + plane * (VISITS * 3 * LANES * GROUP)
        visits = taps[step.visits + plane]
    else:
        weight = step.filters + plane * step.kernel_height * step.kernel_width * LANES
        visits = 1
    overhang = (out_width - 1) * stride - step.pad_left + 3 - width
    is_plain = is_3x3 and dilation == 1 and stride <= 2 and step.pad_left <= 1 and overhang <= 1
    is_wide_enough = out_width >= NARROW or (out_width == TINY and stride == 1)
    is_tiled = is_plain and is_wide_enough and last - first >= FILTER_ROWS
    rows = FILTER_ROWS if is_tiled else 1
    i = first
    while i < last:
        i = min(i, last - rows)
        top = i * stride - step.pad_top
        j = 0
        while j < out_width:
            pixels = 1
            if is_tiled:
                pixels = WIDE if out_width - j >= WIDE and visits <= 2 else min(NARROW, out_width)
                j = min(j, out_width - pixels)
            column = j * stride - step.pad_left
            if pixels == WIDE and visits == 1 and stride == 1:
                _wide_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line, sums,
                        place)  # fmt: skip
            elif pixels == WIDE and visits == 1:
                _wide_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line, sums,
                        place)  # fmt: skip
            elif pixels == WIDE and stride == 1:
                _wide_twice_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line,
                              sums, place)  # fmt: skip
            elif pixels == WIDE:
                _wide_twice_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line,
                              sums, place)  # fmt: skip
            elif pixels == NARROW and visits == 1 and stride == 1:
                _narrow_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line, sums,
                          place)  # fmt: skip
            elif pixels == NARROW and visits == 1:
                _narrow_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line, sums,
                          place)  # fmt: skip
            elif pixels == NARROW and stride == 1:
                _narrow_often_1(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line,
                                sums, place)  # fmt: skip
            elif pixels == NARROW:
                _narrow_often_2(arena, image, x_row, top, height, column, width, 2, 1, weights, weight, lines, line,
                                sums, place)  # fmt: skip
            elif pixels == TINY:
                _tiny(arena, image, x_row, top, height, column, width, 1, 1, weights, weight, lines, line, sums,
                      place)  # fmt: skip
            elif is_3x3 and visits == 1:
                _any(arena, image, x_row, top, height, column, width, stride, dilation, weights, weight, lines, line,
                     sums, place)  # fmt: skip
            elif is_3x3:
                _any_often(arena, image, x_row, top, height, column, width, stride, dilation, weights, weight,
                           lines, line, sums, place)  # fmt: skip
            else:
                _filter_pixel(step, arena, image, scales, weight, top, column, sums, place)
            target = out + (i * out_width + j) * LANES
            requantize(step, sums, place, rows, pixels * LANES, pixels, LANES, plane, 1, scales, arena, target,
                       out_width * LANES)  # fmt: skip
            j += pixels
        i += rows


@inlined
def _filter_pixel(
    step: Any, arena: Any, image: int, scales: Any, weight: int, top: int, left: int, sums: Any, place: int
) -> None:
    """Sum one window of any size; what lies outside counts as the zero point."""
    for lane in range(LANES):
        total = 0
        for tap in range(step.kernel_height * step.kernel_width):
            row = top + tap // step.kernel_width * step.dilation
            column = left + tap % step.kernel_width * step.dilation
            value = step.x_zero
            if 0 <= row < step.height and 0 <= column < step.width:
                value = arena[image + (row * step.width + column) * LANES + lane]
            total += value * scales[weight + tap * LANES + lane]
        sums[place + lane] = total


@inlined
def average_pool2d(step: Any, arena: Any, sums: Any, part: int, parts: int, thread: int) -> None:
    """Average windows that lie inside the image. Defined by quantized_reference.average_pool2d."""
    rows = plane_count(step.channels, LANES) * step.batch * step.out_height
    first, last = share(rows, 1, part, parts)
    for row in range(first, last):
        _average_row(step, arena, sums, row, thread * (LARGE * PANEL_VECTORS * LANES))


@compiled
def _average_row(step: Any, arena: Any, sums: Any, row: int, place: int) -> None:
    keep_apart()
    area = step.kernel_height * step.kernel_width
    offset = 128 if step.is_signed else 0
    image, i = row // step.out_height, row % step.out_height  # planes and images lie side by side
    for j in range(step.out_width):
        total = spread(0)
        for di in range(step.kernel_height):
            line = (image * step.height + i * step.stride + di) * step.width + j * step.stride
            for dj in range(step.kernel_width):
                total = plus(total, load_bytes(arena, step.x + (line + dj) * LANES))
        store_integers(sums, place, total)
        for lane in range(LANES):
            value = sums[place + lane] - area * offset
            mean = (value + area // 2) // area if value >= 0 else -((area // 2 - value) // area)
            arena[step.out + (row * step.out_width + j) * LANES + lane] = min(max(mean + offset, step.low), step.high)


@inlined
def add(step: Any, scales: Any, arena: Any, part: int, parts: int) -> None:
    """Add two maps of bytes. Defined by quantized_reference.add.

    Shapes: x, y, out: maps of one shape; scales: three rows of `SCALES`, of x, y and the sum.
    """
    vectors = plane_count(step.channels, LANES) * step.batch * step.height * step.width
    first, last = share(vectors, 1, part, parts)
    _add(step, scales, arena, first, last)


@compiled
def _add(step: Any, scales: Any, arena: Any, first: int, last: int) -> None:
    keep_apart()
    row = len(SCALES) * LANES
    x_table, y_table, out_table = step.scales + LANES, step.scales + row + LANES, step.scales + 2 * row + LANES
    x_by, x_left, x_right = _load_scale(scales, x_table)
    y_by, y_left, y_right = _load_scale(scales, y_table)
    out_by, out_left, out_right = _load_scale(scales, out_table)
    x_zero, y_zero, out_zero = spread(-step.x_zero), spread(-step.y_zero), spread(step.out_zero)
    low, high = spread(step.low), spread(step.high)
    for vector in range(first, last):
        x = plus(load_bytes(arena, step.x + vector * LANES), x_zero)
        y = plus(load_bytes(arena, step.y + vector * LANES), y_zero)
        total = plus(scale_twice_rounded(x, x_by, x_left, x_right), scale_twice_rounded(y, y_by, y_left, y_right))
        result = plus(scale_twice_rounded(total, out_by, out_left, out_right), out_zero)
        store_bytes(arena, step.out + vector * LANES, limit(result, low, high))


@inlined
def _load_scale(scales: Any, table: int) -> Any:
    return load_integers(scales, table), load_integers(scales, table + LANES), load_integers(scales, table + 2 * LANES)


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
