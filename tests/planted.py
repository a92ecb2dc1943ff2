"""Small networks with lively weights, and the same with one fault planted: what the comparison has to find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minimobile as mm
from minimobile.models.classes import MobileNetModel

V1 = mm.MobileNetV1Config(depth_multiplier=0.1, num_labels=11)
V2 = mm.MobileNetV2Config(depth_multiplier=0.1, num_labels=11, finegrained_output=False)
CLASSES: dict[str, tuple[type[MobileNetModel], Any]] = {
    "v1": (mm.MobileNetV1ForImageClassification, V1),
    "v2": (mm.MobileNetV2ForImageClassification, V2),
    "deeplab": (mm.MobileNetV2ForSemanticSegmentation, V2.replace(output_stride=8)),
}


def make_network(kind: str, **fields: Any) -> MobileNetModel:
    """Return a network whose values neither die out nor all reach 6: He's scale, batch norms that do something."""
    model_class, config = CLASSES[kind]
    random = np.random.default_rng(0)
    model = model_class(config.replace(**fields))
    weights = {name: _draw(name, values.shape, random) for name, values in model.state_dict().items()}
    return with_weights(model, weights)


def _draw(name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    role = name.rpartition(".")[2]
    if role == "running_var" or (role == "weight" and len(shape) == 1):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.5
    return random.normal(0.5 if role == "bias" else 0, scale, shape).astype(np.float32)


def with_weights(model: MobileNetModel, weights: dict[str, Any], **fields: Any) -> MobileNetModel:
    """Return the network with some weights and fields of the config replaced."""
    checkpoint = model.to_checkpoint()
    changed = {**checkpoint.weights, **weights}
    return type(model).from_checkpoint(
        dataclasses.replace(checkpoint, weights=changed, config=checkpoint.config.replace(**fields))
    )


def with_changed(
    model: MobileNetModel, name: str, change: Callable[[NDArray[Any]], NDArray[Any]], **fields: Any
) -> MobileNetModel:
    """Return the network with one weight changed by a function."""
    (full,) = [key for key in model.state_dict() if key.endswith(name)]
    return with_weights(model, {full: np.ascontiguousarray(change(model.state_dict()[full]))}, **fields)


def draw_pixels(size: int = 32) -> NDArray[np.float32]:
    """Return pixel values (1, 3, size, size) in [-1, 1]."""
    return np.random.default_rng(1).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
