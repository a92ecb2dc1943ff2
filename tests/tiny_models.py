"""Small models of every class with random weights, and how one is made."""

from __future__ import annotations

import minimobile as mm

TINY = {"depth_multiplier": 0.1, "min_depth": 4}
V1 = mm.MobileNetV1Config(**TINY, num_labels=5)
V2 = mm.MobileNetV2Config(**TINY, depth_divisible_by=4, finegrained_output=False, num_labels=5)
CLASSES = [
    (mm.MobileNetV1Model, V1),
    (mm.MobileNetV1ForImageClassification, V1),
    (mm.MobileNetV2Model, V2),
    (mm.MobileNetV2ForImageClassification, V2),
    (mm.MobileNetV2ForSemanticSegmentation, V2),
]


def make(model_class, config, seed=0, **options):
    return model_class(config.replace(initializer_range=0.3), seed=seed, **options)
