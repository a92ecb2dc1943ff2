"""A segmentation as pictures: the mask with its palette, and the mask laid over the photo."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.errors import InputError

PALETTE_SIZE = 256
OPACITY = 0.6


def palette() -> NDArray[np.uint8]:
    """Return the (256, 3) colours of PASCAL VOC: class 0 black, and neighbouring class ids far apart in colour.

    The bits of the class id are dealt out in turn to red, green and blue, each channel filled from its highest bit
    down: bit 3k goes to bit 7-k of red, bit 3k+1 to green's, bit 3k+2 to blue's. Source: the PASCAL VOC development
    kit, `VOClabelcolormap`.

    >>> palette()[[0, 1, 2, 8, 15]].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [64, 0, 0], [192, 128, 128]]
    """
    ids = np.arange(PALETTE_SIZE)
    colours = np.zeros((PALETTE_SIZE, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def draw_mask(classes: NDArray[np.integer[Any]]) -> Image.Image:
    """Return the palette picture of a (H, W) array of class ids: its pixel values are the ids themselves."""
    if classes.size and int(classes.max()) >= PALETTE_SIZE:
        raise InputError(
            f"mask: expected class ids below {PALETTE_SIZE}, which a palette PNG holds, got {int(classes.max())}; "
            "use the library's post_process_semantic_segmentation for more classes"
        )
    mask = Image.fromarray(classes.astype(np.uint8))
    mask.putpalette(palette().tobytes())
    return mask


def draw_overlay(photo: Image.Image, classes: NDArray[np.integer[Any]]) -> Image.Image:
    """Return the photo with each class but 0 tinted in its palette colour, and a white line around each region.

    Shapes: classes (H, W), of the photo's own size.
    """
    pixels = np.asarray(photo.convert("RGB"), np.float32)  # (H, W, 3)
    tinted = pixels + OPACITY * (palette()[classes] - pixels)
    drawn = np.where((classes == 0)[..., None], pixels, tinted)
    drawn[_outlines(classes)] = 255
    return Image.fromarray(np.rint(drawn).astype(np.uint8))


def _outlines(classes: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return the pixels of a region that touch another region on the right or below, seen from both sides."""
    edge: NDArray[np.bool_] = np.zeros(classes.shape, bool)
    differs = classes[:, 1:] != classes[:, :-1]
    edge[:, 1:] |= differs
    edge[:, :-1] |= differs
    differs = classes[1:] != classes[:-1]
    edge[1:] |= differs
    edge[:-1] |= differs
    edge &= classes != 0
    return edge
