"""What an ONNX file says of itself beside its network: the classes' names, how pictures come in, and our own settings.

`labels` has one name per line, `preprocessor_config` is transformers' JSON, the keys that begin with "Image." are those
of ONNX's MetadataProps.md, and `minimobile.settings` is what our own reader takes (`own_settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import read_normalization
from minimobile.formats.own_settings import Settings, label_lines, pack_settings, read_settings, to_json

OWN, LABELS, PROCESSOR = "minimobile.settings", "labels", "preprocessor_config"
_PIXEL_FORMATS = {1: "Gray8", 3: "Rgb8"}
_RANGES = {(0.0, 1.0): "Normalized_0_1", (-1.0, 1.0): "Normalized_1_1", (0.0, 255.0): "NominalRange_0_255"}


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata of a file."""
    labels, settings = label_lines(checkpoint), checkpoint.processor
    metadata = {OWN: pack_settings(checkpoint).decode()}
    if labels is not None:
        metadata[LABELS] = "\n".join(labels)
    channels = checkpoint.config.num_channels
    if settings is not None:
        metadata[PROCESSOR] = to_json(settings)
        if channels in _PIXEL_FORMATS:
            metadata |= {"Image.BitmapPixelFormat": _PIXEL_FORMATS[channels], "Image.ColorSpaceGamma": "SRGB"}
            known = _RANGES.get(_pixel_range(settings, channels))
            if known is not None:
                metadata["Image.NominalPixelRange"] = known
    return metadata


def read_own(metadata: Mapping[str, str], where: str) -> Settings | None:
    """Return what `describe` packed of ours, the classes' names among it; None for the files of others.

    Raises FormatError for a damaged text.
    """
    if OWN not in metadata:
        return None
    own = read_settings(metadata[OWN].encode(), f"{where}: {OWN}")
    labels = metadata.get(LABELS, "").split("\n")
    if len(labels) != own.config.num_labels or LABELS not in metadata:
        return own
    return own._replace(config=own.config.replace(id2label=dict(enumerate(labels))))


def _pixel_range(settings: Mapping[str, Any], channels: int) -> tuple[float, float]:
    """Return what bytes of 0 and 255 become, (0, 0) where that differs by channel."""
    factor, means, deviations = read_normalization(settings, channels)
    mean, std = np.unique(means), np.unique(deviations)
    if len(mean) > 1 or len(std) > 1:
        return 0.0, 0.0
    low, high = ((byte * factor - mean[0]) / std[0] for byte in (0, 255))
    return round(float(low), 9), round(float(high), 9)
