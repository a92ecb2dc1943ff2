"""TF-slim's variables for weights under our names: the other direction of the reader's table, written by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from minimobile.networks.build_graph import build_graph

PARTS = {"expand_1x1": "expand", "conv_3x3": "depthwise", "reduce_1x1": "project"}
HEAD = {"conv_pool": "image_pooling", "conv_aspp": "aspp0", "conv_projection": "concat_projection"}
STATISTICS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def slim_scope(layer: str) -> str:
    """Return the scope of a layer ("mobilenet_v1.layer.3" -> "MobilenetV1/Conv2d_2_pointwise")."""
    if found := re.fullmatch(r"mobilenet_v1\.layer\.(\d+)", layer):
        index = int(found[1])
        return f"MobilenetV1/Conv2d_{index // 2 + 1}_{('depthwise', 'pointwise')[index % 2]}"
    if found := re.fullmatch(r"mobilenet_v2\.layer\.(\d+)\.(\w+)", layer):
        return f"MobilenetV2/expanded_conv_{int(found[1]) + 1}/{PARTS[found[2]]}"
    if found := re.fullmatch(r"mobilenet_v2\.conv_stem\.(\w+)", layer):
        return "MobilenetV2/Conv" if found[1] == "first_conv" else f"MobilenetV2/expanded_conv/{PARTS[found[1]]}"
    if found := re.fullmatch(r"segmentation_head\.(conv_\w+)", layer):
        return HEAD[found[1]]
    return {"mobilenet_v1.conv_stem": "MobilenetV1/Conv2d_0", "mobilenet_v2.conv_1x1": "MobilenetV2/Conv_1"}[layer]


def slim_variables(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return {TF-slim's name: array in TensorFlow's layout}."""
    version = "MobilenetV1" if any(name.startswith("mobilenet_v1.") for name in weights) else "MobilenetV2"
    variables = {}
    for name, values in weights.items():
        layer, _, parameter = name.rpartition(".")
        if layer in ("classifier", "segmentation_head.classifier.convolution"):
            scope = f"{version}/Logits/Conv2d_1c_1x1" if layer == "classifier" else "logits/semantic"
            kernel = values.reshape(*values.shape[:2], 1, 1).transpose(2, 3, 1, 0) if parameter == "weight" else None
            variables[f"{scope}/{'biases' if kernel is None else 'weights'}"] = values if kernel is None else kernel
        elif layer.endswith(".normalization"):
            variables[f"{slim_scope(layer.removesuffix('.normalization'))}/BatchNorm/{STATISTICS[parameter]}"] = values
        else:
            scope = slim_scope(layer.removesuffix(".convolution"))
            is_depthwise = scope.endswith("depthwise")
            order = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
            variables[f"{scope}/{'depthwise_' * is_depthwise}weights"] = values.transpose(order)
    return {name: np.ascontiguousarray(values) for name, values in variables.items()}


def random_weights(config: Any, architecture: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights that keep values in range through the layers, with batch norms that do something."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in build_graph(config, architecture).shapes.items():
        if name.endswith("running_var") or name.endswith("normalization.weight"):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.standard_normal(shape) * (0.2 if len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5)
        weights[name] = values.astype(np.float32)
    return weights
