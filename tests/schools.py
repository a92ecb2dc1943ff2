"""Each school's processor, and a checkpoint read as one of that school."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import DIALECTS, processor_settings
from minimobile.imaging.image_processing import MobileNetV1ImageProcessor, MobileNetV2ImageProcessor
from minimobile.models import classes

V1, V2, SEGMENTER = (
    "MobileNetV1ForImageClassification",
    "MobileNetV2ForImageClassification",
    "MobileNetV2ForSemanticSegmentation",
)
EDGES = st.integers(1, 40)


def processor_of(dialect: str, architecture: str, size: tuple[int, int], channels: int = 3) -> Any:
    kind = MobileNetV1ImageProcessor if "V1" in architecture else MobileNetV2ImageProcessor
    return kind.from_dict(processor_settings(DIALECTS[dialect], architecture, size, channels))


def with_school(checkpoint: Checkpoint, dialect: str, side: int) -> Any:
    values = processor_settings(DIALECTS[dialect], checkpoint.architecture, (side, side))
    kind = getattr(classes, checkpoint.architecture)
    return kind.from_checkpoint(dataclasses.replace(checkpoint, processor=values))
