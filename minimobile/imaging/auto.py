"""The image processor that a file describes, whichever class it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minimobile.arguments import show
from minimobile.errors import ConfigError
from minimobile.imaging.files import read_model_type, read_processor
from minimobile.imaging.image_processing import MobileNetV1ImageProcessor, MobileNetV2ImageProcessor


class AutoImageProcessor:
    """Reads the image processor that a directory or file describes."""

    def __new__(cls) -> AutoImageProcessor:  # noqa: D102
        raise ConfigError("AutoImageProcessor: use AutoImageProcessor.from_pretrained(source)")

    @staticmethod
    def from_pretrained(
        source: str | Path | None = None, **overrides: Any
    ) -> MobileNetV1ImageProcessor | MobileNetV2ImageProcessor:
        """Read a processor; its class follows `image_processor_type`, the older `feature_extractor_type`, or the
        `model_type` of the config.json beside it.

        Raises:
            FormatError: there is no such file, or it is not JSON.
            ConfigError: it describes no MobileNet V1 or V2, or holds a value of the wrong type or range.
        """
        values, path, settings = read_processor(source, overrides)
        named = values.get("image_processor_type") or values.get("feature_extractor_type") or read_model_type(path)
        stem = str(named).replace("_", "").lower()
        if stem.startswith("mobilenetv1"):
            return MobileNetV1ImageProcessor._from_values(values, settings, str(path))
        if stem.startswith("mobilenetv2"):
            return MobileNetV2ImageProcessor._from_values(values, settings, str(path))
        raise ConfigError(
            f"{path}: expected the processor of a MobileNet V1 or V2, got {show(named)}; where it is one all the same, "
            f"read it with MobileNetV1ImageProcessor or MobileNetV2ImageProcessor"
        )
