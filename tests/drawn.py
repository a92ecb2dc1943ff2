"""Pictures of random bytes, and the processors that read them."""

from __future__ import annotations

import numpy as np

from minimobile.imaging.image_processing import (
    MobileNetV1ImageProcessor,
    MobileNetV2ImageProcessor,
)

PROCESSORS = (MobileNetV1ImageProcessor, MobileNetV2ImageProcessor)


def draw(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
