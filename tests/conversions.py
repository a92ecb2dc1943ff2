"""A small checkpoint to convert, and everything that a directory holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import minimobile as mm
from minimobile.formats import huggingface
from minimobile.formats.checkpoint import Checkpoint
from minimobile.models.weights import draw_weights
from minimobile.networks.build_graph import build_graph

COUNTER = "num_batches_tracked"


def make_checkpoint(architecture: str = "MobileNetV1ForImageClassification", **fields: Any) -> Checkpoint:
    """Return a small random network with labels, a processor, and batch norms that have counted."""
    config_class: Any = mm.MobileNetV1Config if "V1" in architecture else mm.MobileNetV2Config
    config = config_class(
        **{"depth_multiplier": 0.1, "id2label": {0: "Käse", 1: "猫", 2: "emu"}, "output_stride": 32} | fields
    )
    rng = np.random.default_rng(5)
    weights = draw_weights(build_graph(config, architecture), 0.2, 3)
    for number, name in enumerate([name for name in weights if name.endswith("running_mean")]):
        weights[name.replace("running_mean", COUNTER)] = np.array(number + 1, np.int64)
        weights[name] = rng.standard_normal(weights[name].shape).astype(np.float32)
        weights[name.replace("mean", "var")] = rng.uniform(0.5, 2, weights[name].shape).astype(np.float32)
    processor = {"do_resize": True, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    return Checkpoint(config, weights, architecture, processor)


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    huggingface.write(folder, checkpoint)
    return folder


def stored(directory: Path) -> dict[str, Any]:
    """Return everything that a directory holds: {name: (type, shape, bytes)} and the texts."""
    arrays = safetensors.numpy.load_file(directory / "model.safetensors")
    texts = {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".json"}
    return texts | {name: (str(values.dtype), values.shape, values.tobytes()) for name, values in arrays.items()}


def without_last_convolution(checkpoint: Checkpoint) -> Checkpoint:
    """Return a DeepLab as its own checkpoints are: without `conv_1x1`, which no output needs."""
    kept = {name: values for name, values in checkpoint.weights.items() if ".conv_1x1." not in name}
    return dataclasses.replace(checkpoint, weights=kept)
