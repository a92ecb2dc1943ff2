"""MobileNet V1, V2 and DeepLabV3+ without a deep-learning framework."""

from __future__ import annotations

from minimobile.auto import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    classify,
    load,
)
from minimobile.config import MobileNetV1Config, MobileNetV2Config
from minimobile.errors import ConfigError, FormatError, InputError, MinimobileError, UnavailableError, UnknownLayerError
from minimobile.image_processing import (
    AutoImageProcessor,
    MobileNetV1FeatureExtractor,
    MobileNetV1ImageProcessor,
    MobileNetV2FeatureExtractor,
    MobileNetV2ImageProcessor,
)
from minimobile.models import (
    MobileNetV1ForImageClassification,
    MobileNetV1Model,
    MobileNetV2ForImageClassification,
    MobileNetV2ForSemanticSegmentation,
    MobileNetV2Model,
)

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForSemanticSegmentation",
    "ConfigError",
    "FormatError",
    "InputError",
    "MinimobileError",
    "MobileNetV1Config",
    "MobileNetV1FeatureExtractor",
    "MobileNetV1ForImageClassification",
    "MobileNetV1ImageProcessor",
    "MobileNetV1Model",
    "MobileNetV2Config",
    "MobileNetV2FeatureExtractor",
    "MobileNetV2ForImageClassification",
    "MobileNetV2ForSemanticSegmentation",
    "MobileNetV2ImageProcessor",
    "MobileNetV2Model",
    "UnavailableError",
    "UnknownLayerError",
    "classify",
    "load",
]
