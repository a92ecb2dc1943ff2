"""MobileNet V1, V2, DeepLabV3+ and SSD without a deep-learning framework.

Names are imported when they are first used: `minimobile --help` waits for no compiler and no Pillow, and whoever
interrupts a command before it has begun meets no traceback.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimobile.bulk.options import BulkOptions
    from minimobile.bulk.part_runner import PartReport, PartRunner
    from minimobile.bulk.run import Summary, run
    from minimobile.calibration.quantize import quantize
    from minimobile.comparison.crosscheck import check
    from minimobile.comparison.every_runtime import RuntimesReport, check_all
    from minimobile.comparison.pixels import PixelReport, compare_pixels
    from minimobile.comparison.report import LayerComparison, Report
    from minimobile.errors import (
        ConfigError,
        FormatError,
        FrozenConfigError,
        InputError,
        MinimobileError,
        MissingError,
        UnavailableError,
        UnknownLayerError,
        UnreachableError,
    )
    from minimobile.explorer.explore import Exploration, explore
    from minimobile.imaging.auto import AutoImageProcessor
    from minimobile.imaging.batches import BatchFeature
    from minimobile.imaging.image_processing import (
        MobileNetV1FeatureExtractor,
        MobileNetV1ImageProcessor,
        MobileNetV1ImageProcessorPil,
        MobileNetV2FeatureExtractor,
        MobileNetV2ImageProcessor,
        MobileNetV2ImageProcessorPil,
    )
    from minimobile.models.auto import (
        AutoConfig,
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForObjectDetection,
        AutoModelForSemanticSegmentation,
        load,
    )
    from minimobile.models.classes import (
        MobileNetV1ForImageClassification,
        MobileNetV1ForObjectDetection,
        MobileNetV1Model,
        MobileNetV2ForImageClassification,
        MobileNetV2ForObjectDetection,
        MobileNetV2ForSemanticSegmentation,
        MobileNetV2Model,
    )
    from minimobile.models.classification import classify
    from minimobile.models.conversion import convert
    from minimobile.models.conversion_report import ConversionReport
    from minimobile.models.detection import detect
    from minimobile.models.pipelines import (
        ImageClassificationPipeline,
        ImageFeatureExtractionPipeline,
        ImageSegmentationPipeline,
        ObjectDetectionPipeline,
        pipeline,
    )
    from minimobile.models.segmentation import Segmentation, segment
    from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
    from minimobile.networks.ssd_config import MobileNetSSDConfig
    from minimobile.tracing.explanation import Explanation
    from minimobile.tracing.trace import Trace
    from minimobile.tracing.trace_table import TracedLayer

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForObjectDetection",
    "AutoModelForSemanticSegmentation",
    "BatchFeature",
    "BulkOptions",
    "ConfigError",
    "ConversionReport",
    "Explanation",
    "Exploration",
    "FormatError",
    "FrozenConfigError",
    "ImageClassificationPipeline",
    "ImageFeatureExtractionPipeline",
    "ImageSegmentationPipeline",
    "InputError",
    "LayerComparison",
    "MinimobileError",
    "MissingError",
    "MobileNetSSDConfig",
    "MobileNetV1Config",
    "MobileNetV1FeatureExtractor",
    "MobileNetV1ForImageClassification",
    "MobileNetV1ForObjectDetection",
    "MobileNetV1ImageProcessor",
    "MobileNetV1ImageProcessorPil",
    "MobileNetV1Model",
    "MobileNetV2Config",
    "MobileNetV2FeatureExtractor",
    "MobileNetV2ForImageClassification",
    "MobileNetV2ForObjectDetection",
    "MobileNetV2ForSemanticSegmentation",
    "MobileNetV2ImageProcessor",
    "MobileNetV2ImageProcessorPil",
    "MobileNetV2Model",
    "ObjectDetectionPipeline",
    "PartReport",
    "PartRunner",
    "PixelReport",
    "Report",
    "RuntimesReport",
    "Segmentation",
    "Summary",
    "Trace",
    "TracedLayer",
    "UnavailableError",
    "UnknownLayerError",
    "UnreachableError",
    "check",
    "check_all",
    "classify",
    "compare_pixels",
    "convert",
    "detect",
    "explore",
    "load",
    "pipeline",
    "quantize",
    "run",
    "segment",
]

_LATE = {
    "minimobile.errors": (
        "ConfigError",
        "FormatError",
        "FrozenConfigError",
        "InputError",
        "MinimobileError",
        "MissingError",
        "UnavailableError",
        "UnknownLayerError",
        "UnreachableError",
    ),
    "minimobile.networks.config": ("MobileNetV1Config", "MobileNetV2Config"),
    "minimobile.networks.ssd_config": ("MobileNetSSDConfig",),
    "minimobile.bulk.options": ("BulkOptions",),
    "minimobile.bulk.part_runner": ("PartReport", "PartRunner"),
    "minimobile.bulk.run": ("Summary", "run"),
    "minimobile.models.auto": (
        "AutoConfig",
        "AutoModel",
        "AutoModelForImageClassification",
        "AutoModelForObjectDetection",
        "AutoModelForSemanticSegmentation",
        "load",
    ),
    "minimobile.models.classification": ("classify",),
    "minimobile.models.detection": ("detect",),
    "minimobile.models.pipelines": (
        "ImageClassificationPipeline",
        "ImageFeatureExtractionPipeline",
        "ImageSegmentationPipeline",
        "ObjectDetectionPipeline",
        "pipeline",
    ),
    "minimobile.models.segmentation": ("Segmentation", "segment"),
    "minimobile.calibration.quantize": ("quantize",),
    "minimobile.explorer.explore": ("Exploration", "explore"),
    "minimobile.models.conversion": ("convert",),
    "minimobile.models.conversion_report": ("ConversionReport",),
    "minimobile.comparison.crosscheck": ("check",),
    "minimobile.comparison.every_runtime": ("RuntimesReport", "check_all"),
    "minimobile.comparison.report": ("LayerComparison", "Report"),
    "minimobile.tracing.explanation": ("Explanation",),
    "minimobile.imaging.batches": ("BatchFeature",),
    "minimobile.imaging.auto": ("AutoImageProcessor",),
    "minimobile.imaging.image_processing": (
        "MobileNetV1FeatureExtractor",
        "MobileNetV1ImageProcessor",
        "MobileNetV1ImageProcessorPil",
        "MobileNetV2FeatureExtractor",
        "MobileNetV2ImageProcessor",
        "MobileNetV2ImageProcessorPil",
    ),
    "minimobile.models.classes": (
        "MobileNetV1ForImageClassification",
        "MobileNetV1ForObjectDetection",
        "MobileNetV1Model",
        "MobileNetV2ForImageClassification",
        "MobileNetV2ForObjectDetection",
        "MobileNetV2ForSemanticSegmentation",
        "MobileNetV2Model",
    ),
    "minimobile.comparison.pixels": ("PixelReport", "compare_pixels"),
    "minimobile.tracing.trace": ("Trace",),
    "minimobile.tracing.trace_table": ("TracedLayer",),
}


if not TYPE_CHECKING:  # or a type checker would take any name for one of the module's

    def __getattr__(name: str) -> Any:
        """Import a public name from the module that holds it (PEP 562)."""
        for module, names in _LATE.items():
            if name in names:
                value = globals()[name] = getattr(import_module(module), name)
                return value
        raise AttributeError(f"module 'minimobile' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
