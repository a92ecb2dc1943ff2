"""Networks of every kind with random weights, as `mm.quantize` takes them, and pictures for them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from spelling import random_weights

import minimobile as mm
from minimobile.calibration.method import Method
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import DIALECTS, processor_settings
from minimobile.networks.build_graph import build_graph

V1, V2 = "MobileNetV1ForImageClassification", "MobileNetV2ForImageClassification"
DEEPLAB, HEADLESS = "MobileNetV2ForSemanticSegmentation", "MobileNetV1Model"
LITE, DETECTOR = "MobileNetV2ForObjectDetection", "MobileNetV1ForObjectDetection"
TINY = {"depth_multiplier": 0.1, "image_size": 33, "num_labels": 5}
NETWORKS = {
    "V1": (V1, {}),
    "V1, wider, odd": (V1, {"depth_multiplier": 0.25, "image_size": (35, 50)}),
    "V1, symmetric padding, relu": (V1, {"tf_padding": False, "hidden_act": "relu", "image_size": 41}),
    "V1, Keras' padding, fixed pool": (V1, {"bottom_right_padding": "all", "pool_size": 2, "image_size": 64}),
    "V1 without head": (HEADLESS, {}),
    "V1, output stride 16": (V1, {"output_stride": 16}),
    "V2": (V2, {}),
    "V2, odd": (V2, {"image_size": (47, 33), "depth_multiplier": 0.35}),
    "V2, symmetric padding": (V2, {"tf_padding": False, "image_size": 40}),
    "V2, ratio 3": (V2, {"expand_ratio": 3.0}),
    "DeepLab": (DEEPLAB, {"output_stride": 8}),
    "DeepLab, odd, output stride 16": (DEEPLAB, {"output_stride": 16, "image_size": (37, 51)}),
    "SSDLite on V2": (LITE, {}),
    "SSDLite on V1, odd, symmetric padding": (DETECTOR, {"image_size": (33, 47), "tf_padding": False}),
    "SSD on V1, class by class": (DETECTOR, {"ssd": mm.MobileNetSSDConfig(use_depthwise=False, use_regular_nms=True)}),
    "SSD on V2, softmax": (LITE, {"ssd": mm.MobileNetSSDConfig(use_depthwise=False, score_converter="softmax")}),
}
SCHEMES = {"int8": Method(), "uint8": Method(per_channel=False)}


def make(architecture: str, fields: dict, dialect: str = "huggingface", seed: int = 0) -> mm.MobileNetV1Model:
    config_class = mm.MobileNetV1Config if "V1" in architecture else mm.MobileNetV2Config
    config = config_class(**{**TINY, **fields, "architectures": (architecture,)})
    side = config.image_size
    size = (side, side) if isinstance(side, int) else side
    processor = processor_settings(DIALECTS[dialect], architecture, size)
    weights = random_weights(build_graph(config, architecture), seed)
    return getattr(mm, architecture).from_checkpoint(Checkpoint(config, weights, architecture, processor))


def photographs(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8)) for _ in range(count)]
