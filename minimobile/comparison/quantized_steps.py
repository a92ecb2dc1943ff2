"""A quantised network beside the float network that it stands for: how many steps of its bytes each layer is off."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minimobile.errors import InputError
from minimobile.execution.runner import RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.imaging.pictures import bring_upright
from minimobile.models import classes
from minimobile.models.base_model import MobileNetModel
from minimobile.models.inputs import read_pixel_values
from minimobile.models.sources import read_checkpoint


@dataclass(frozen=True)
class LayerSteps:
    """One layer: what a step of its bytes is worth, and by how many steps the two networks differ.

    `largest` and `mean` are of the absolute differences, `bias` is the mean with its sign (integers minus floats),
    `same` the share of bytes that the floats round to as well, `clipped` the share of values that the floats have
    beyond what the layer's bytes can stand for.
    """

    name: str
    shape: tuple[int, ...]
    step: float
    largest: float
    mean: float
    bias: float
    same: float
    clipped: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def compare_with_dequantized(
    source: Checkpoint | str | Path,
    image: Any = None,
    *,
    pixel_values: ArrayLike | None = None,
    bytes_of: str = "litert",
) -> tuple[LayerSteps, ...]:
    """Run a quantised file in integers and in floats on the same pixels, and return their differences layer by layer.

    Each network runs on its own values: a layer's difference holds what came about before it. The float network has the
    file's own weights as numbers, so all that differs is the rounding to bytes after every layer.

    Args:
        source: a quantised file, or what was read of one.
        image: one picture, in any form that the file's image processor takes.
        pixel_values: (N, C, H, W), in place of a picture.
        bytes_of: as `load` takes it.

    Raises:
        InputError: neither a picture nor pixel values, or both; or the source is not quantised.
        FormatError: the source cannot be read, or not run in integers.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    if not checkpoint.is_quantized:
        raise InputError("source: expected a quantised file, got one of floats")
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    integers = model_class.from_checkpoint(checkpoint, options=RunOptions(bytes_of=bytes_of))
    floats = model_class.from_checkpoint(checkpoint, options=RunOptions(dequantize=True))
    network = checkpoint.quantized
    assert network is not None, "or there would be no model of integers"
    if (image is None) == (pixel_values is None):
        raise InputError("image: expected a picture or pixel_values, one of them")
    if pixel_values is None:
        pixel_values = integers.processor(bring_upright(image), return_tensors="np")["pixel_values"]
    pixels = read_pixel_values(pixel_values, integers.config.num_channels, "channels_first")
    names = [node.name for node in integers.graph.nodes if node.name in checkpoint.endpoints]
    ours, theirs = (model.features(pixels, names) for model in (integers, floats))
    rows = []
    for name in names:
        tensor = network.tensors[checkpoint.endpoints[name]]
        limits = np.iinfo(tensor.dtype)
        scale, zero = float(tensor.scale), tensor.zero
        exact = theirs[name].astype(np.float64).reshape(ours[name].shape) / scale
        stored = ours[name].astype(np.float64) / scale
        steps = stored - exact
        is_same = np.rint(stored) == np.rint(np.clip(exact, int(limits.min) - zero, int(limits.max) - zero))
        is_beyond = (exact < int(limits.min) - zero - 0.5) | (exact > int(limits.max) - zero + 0.5)
        sizes = np.abs(steps)
        rows.append(
            LayerSteps(
                name, ours[name].shape[1:], scale, float(sizes.max()), float(sizes.mean()), float(steps.mean()),
                float(is_same.mean()), float(is_beyond.mean()),
            )
        )  # fmt: skip
    return tuple(rows)
