"""The networks that the benchmarks time, with random weights."""

from __future__ import annotations

import math

import numpy as np

import minimobile as mm
from minimobile.comparison.sized_network import Shape
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import Graph


def v1(width: float) -> MobileNetModel:
    """Return the V1 classifier with 1001 classes."""
    return mm.MobileNetV1ForImageClassification(mm.MobileNetV1Config(depth_multiplier=width, num_labels=1001))


def v2(width: float) -> MobileNetModel:
    """Return the V2 classifier with 1001 classes."""
    return mm.MobileNetV2ForImageClassification(mm.MobileNetV2Config(depth_multiplier=width, num_labels=1001))


def segmentation() -> MobileNetModel:
    """Return DeepLabV3+ on V2 1.0 at output stride 16 with 21 classes."""
    return mm.MobileNetV2ForSemanticSegmentation(mm.MobileNetV2Config(num_labels=21, output_stride=16))


def detector() -> MobileNetModel:
    """Return SSDLite on V2 1.0 with COCO's 90 classes; its predictors' twelve maps are computed."""
    return mm.MobileNetV2ForObjectDetection(mm.MobileNetV2Config(num_labels=90))


CASES: dict[str, tuple[MobileNetModel, Shape]] = {
    "V1 1.0 224": (v1(1.0), (1, 3, 224, 224)),
    "V2 1.0 224": (v2(1.0), (1, 3, 224, 224)),
    "V1 0.25 128": (v1(0.25), (1, 3, 128, 128)),
    "V2 0.35 128": (v2(0.35), (1, 3, 128, 128)),
    "V2 1.0 224 batch 8": (v2(1.0), (8, 3, 224, 224)),
    "DeepLab V2 1.0 513": (segmentation(), (1, 3, 513, 513)),
    "SSDLite V2 1.0 300": (detector(), (1, 3, 300, 300)),
}


def random_weights(graph: Graph) -> dict[str, np.ndarray]:
    """Return weights that keep a deep network's values in range; speed does not depend on them."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in graph.shapes.items():
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 2.0, shape)
        elif len(shape) > 1:
            values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            values = rng.standard_normal(shape) * 0.3 + name.endswith("normalization.weight")
        weights[name] = values.astype(np.float32)
    return weights


def weighted(case: str) -> tuple[Graph, dict[str, np.ndarray], Shape]:
    """Return the graph of a case, weights for it, and the shape of its pictures."""
    model, shape = CASES[case]
    return model.graph, random_weights(model.graph), shape
