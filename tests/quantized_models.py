"""Quantised TFLite files of whole small networks, of every form, and pictures for them."""

from __future__ import annotations

import numpy as np
from flatbuffer_files import TFLiteWriter
from quantized_files import write_quantized
from spelling import random_weights, spell

from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

V1 = "MobileNetV1ForImageClassification"
V2 = "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
TINY = {"depth_multiplier": 0.1, "min_depth": 1, "num_labels": 3}
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def build(architecture, dtype="uint8", tail=("reshape", "softmax"), has_float_ends=False, is_fused=True, **fields):
    config = (MobileNetV1Config if "V1" in architecture else MobileNetV2Config)(**{**TINY, **fields})
    graph = build_graph(config, architecture)
    layers = spell(graph, random_weights(graph), folded=True, tail=tail)
    return write_quantized(layers, dtype=dtype, has_float_ends=has_float_ends, is_fused=is_fused)


def save(folder, writer):
    path = folder / "model.tflite"
    path.write_bytes(writer.write() if isinstance(writer, TFLiteWriter) else writer)
    return path


FORMS = {
    "V1": (V1, "uint8", ("reshape", "softmax"), {}),
    "V1 in int8": (V1, "int8", ("reshape", "softmax"), {}),
    "V2": (V2, "uint8", ("reshape", "softmax"), {}),
    "V2 in int8, sigmoid": (V2, "int8", ("sigmoid",), {}),
    "V2 without softmax": (V2, "uint8", (), {}),
    "DeepLab": (DEEPLAB, "uint8", ("resize_bilinear", "argmax"), {"output_stride": 8}),
    "DeepLab in int8": (DEEPLAB, "int8", ("resize_bilinear", "argmax"), {"output_stride": 16}),
}
