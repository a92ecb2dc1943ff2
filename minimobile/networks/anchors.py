"""Anchors: the boxes that every cell of a detector's maps starts from (Liu et al. 2016, section 2.2).

As tensorflow/models' `multiple_grid_anchor_generator` computes them, to the bit of float32: a detector's weights were
trained against these very numbers. They are not clipped to the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.ssd_config import MobileNetSSDConfig

Floats = NDArray[np.float32]


def anchor_shapes(ssd: MobileNetSSDConfig, index: int, count: int) -> list[tuple[float, float]]:
    """Return (scale, aspect ratio) of the anchors of one cell of map `index` of `count`.

    The ends of the scales are the float32 that the original's configuration holds; between them it computes in float64.
    """
    low, high = float(np.float32(ssd.min_scale)), float(np.float32(ssd.max_scale))
    scales = [low + (high - low) * i / (count - 1) for i in range(count)] + [1.0]
    if index == 0 and ssd.reduce_boxes_in_lowest_layer:
        return [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
    between = float(np.sqrt(scales[index] * scales[index + 1]))
    return [(scales[index], ratio) for ratio in ssd.aspect_ratios] + [(between, ssd.interpolated_aspect_ratio)]


def make_anchors(ssd: MobileNetSSDConfig, image_size: tuple[int, int], maps: Sequence[tuple[int, int]]) -> Floats:
    """Return all anchors (N, 4) as (y, x, h, w), relative to a picture of `image_size` (height, width).

    `maps` are the (height, width) of the feature maps. Rows are in the order of the predictors' outputs: map, row,
    column, shape.
    """
    found = []
    for index, (height, width) in enumerate(maps):
        shapes = anchor_shapes(ssd, index, len(maps))
        scales, ratios = (np.array(values, np.float32) for values in zip(*shapes, strict=True))
        roots = np.sqrt(ratios)
        least = min(image_size)
        heights = scales / roots * np.float32(least / image_size[0])  # (A,)
        widths = scales * roots * np.float32(least / image_size[1])
        y, x = (
            np.arange(size, dtype=np.float32) * np.float32(1 / size) + np.float32(0.5 * (1 / size))
            for size in (height, width)
        )
        cells = (height, width, len(shapes))
        centres = np.stack([np.broadcast_to(y[:, None, None], cells), np.broadcast_to(x[None, :, None], cells)], -1)
        sizes = np.stack([np.broadcast_to(heights, cells), np.broadcast_to(widths, cells)], -1)  # (H, W, A, 2)
        half = np.float32(0.5)
        low, high = centres - half * sizes, centres + half * sizes
        sizes = high - low  # as a file has them: recomputed from the corners
        found.append(np.concatenate([low + sizes / np.float32(2), sizes], -1).reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)
