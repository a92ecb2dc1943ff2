"""What a detector has besides its backbone: predictors, anchors, box code, and how overlapping boxes are suppressed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from minimobile.errors import ConfigError

SCORE_CONVERTERS = ("sigmoid", "softmax")
POST_PROCESSINGS = ("tflite", "tensorflow")
MOST_DETECTIONS = 100_000
_POSITIVE_COUNTS = ("min_depth", "max_detections", "max_classes_per_detection", "detections_per_class")


@dataclass(frozen=True, kw_only=True)
class MobileNetSSDConfig:
    """The single-shot detector on a MobileNet; the defaults are SSDLite (Sandler et al. 2018, section 6.2).

    `use_depthwise`: extra layers and predictors are 3x3 depthwise and 1x1 convolutions (SSDLite) instead of dense ones
    (SSD). `kernel_size` is the predictors': 3, or 1 as in most SSDs on V1. `min_depth` is the least number of channels
    of a layer, in the backbone as well, whatever the config's own field of that name says.

    Anchors: map i of six has the scale `min_scale + (max_scale - min_scale) * i / 5`, in every one of `aspect_ratios`,
    and one between this scale and the next in `interpolated_aspect_ratio`; with `reduce_boxes_in_lowest_layer` the
    first map has three alone. `stored_anchors` counts those that come with the weights, which then win over this
    formula; 0: there are none.

    `box_scales` (y, x, h, w) divide the network's box encodings. `score_converter`: "sigmoid" or "softmax".
    `post_processing` is the school of suppression: "tflite" (TFLite_Detection_PostProcess), which is fast, over the
    best class of each anchor, or with `use_regular_nms` class by class; or "tensorflow" (a frozen graph's), always
    class by class. `score_threshold`, `iou_threshold`, `max_detections`, `max_classes_per_detection` (of one anchor;
    fast alone) and `detections_per_class` (class by class alone) are its numbers.
    """

    use_depthwise: bool = True
    kernel_size: int = 3
    min_depth: int = 16
    min_scale: float = 0.2
    max_scale: float = 0.95
    aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5, 3.0, 0.3333)
    interpolated_aspect_ratio: float = 1.0
    reduce_boxes_in_lowest_layer: bool = True
    stored_anchors: int = 0
    box_scales: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
    score_converter: str = "sigmoid"
    post_processing: str = "tflite"
    use_regular_nms: bool = False
    score_threshold: float = 1e-8
    iou_threshold: float = 0.6
    max_detections: int = 100
    max_classes_per_detection: int = 1
    detections_per_class: int = 100

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, self._read(field.name, str(field.type), getattr(self, field.name)))
        self._check()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MobileNetSSDConfig:
        """Build from the object `ssd` of a `config.json`. Raises ConfigError for what is no field of this class."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"ssd: expected a JSON object, got {type(values).__name__}")
        unknown = sorted(str(name) for name in set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"ssd: expected fields of MobileNetSSDConfig, got {unknown[0][:80]!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def replace(self, **changes: Any) -> MobileNetSSDConfig:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def _read(self, name: str, annotation: str, value: Any) -> Any:
        """Return a value as its field has it: numbers of a `float` field as floats, lists as tuples."""
        if annotation == "Sequence[float]":
            if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value):
                self._refuse(name, "a list of numbers", value)
            return tuple(self._read_number(name, item) for item in value)
        if annotation == "float":
            if not _is_number(value):
                self._refuse(name, "a number", value)
            return self._read_number(name, value)
        kind = {"int": int, "bool": bool, "str": str}[annotation]
        if type(value) is not kind:
            self._refuse(name, annotation, value)
        return value

    def _read_number(self, name: str, value: int | float) -> float:
        try:
            return float(value)
        except OverflowError:
            return self._refuse(name, "a number that a float can hold", "more")

    def _check(self) -> None:
        def demand(is_right: bool, name: str, expected: str) -> None:
            if not is_right:
                self._refuse(name, expected, getattr(self, name))

        demand(self.kernel_size in (1, 3), "kernel_size", "1 or 3")
        demand(self.kernel_size == 3 or not self.use_depthwise, "kernel_size", "3 where use_depthwise is true")
        for name in _POSITIVE_COUNTS:
            demand(1 <= getattr(self, name) <= MOST_DETECTIONS, name, f"between 1 and {MOST_DETECTIONS}")
        size = self.max_detections * self.max_classes_per_detection
        demand(
            size <= MOST_DETECTIONS, "max_classes_per_detection", f"such that there are {MOST_DETECTIONS} rows at most"
        )
        demand(0 <= self.stored_anchors <= 2**24, "stored_anchors", "between 0 and 16777216")
        demand(0 < self.min_scale < 16, "min_scale", "between 0 and 16")
        demand(0 < self.max_scale < 16, "max_scale", "between 0 and 16")
        ratios = (*self.aspect_ratios, self.interpolated_aspect_ratio)
        is_right = all(math.isfinite(ratio) and 0.001 <= ratio <= 1000 for ratio in ratios)
        demand(is_right and 1 <= len(self.aspect_ratios) <= 64, "aspect_ratios", "1 to 64 numbers from 0.001 to 1000")
        is_right = len(self.box_scales) == 4 and all(2.0**-126 <= scale < 2.0**128 for scale in self.box_scales)
        demand(is_right, "box_scales", "four finite numbers (y, x, h, w) above zero, in float32, too")
        demand(self.score_converter in SCORE_CONVERTERS, "score_converter", f"one of {', '.join(SCORE_CONVERTERS)}")
        demand(self.post_processing in POST_PROCESSINGS, "post_processing", f"one of {', '.join(POST_PROCESSINGS)}")
        demand(0 <= self.score_threshold <= 1, "score_threshold", "between 0 and 1")
        demand(0 < self.iou_threshold <= 1, "iou_threshold", "above 0 and at most 1")

    def _refuse(self, name: str, expected: str, value: object) -> NoReturn:
        raise ConfigError(f"MobileNetSSDConfig: expected {name} to be {expected}, got {str(value)[:80]}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
