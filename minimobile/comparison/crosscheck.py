"""Cross-checking: the same pixels through us and through another framework, layer by layer, and what differs first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.comparison.layer_comparison import compare_layers
from minimobile.comparison.peers import PEERS, Observed, Peer, as_map, run_peer
from minimobile.comparison.pixels import describe_settings
from minimobile.comparison.report import Report
from minimobile.comparison.torch_modules import is_module, run_module
from minimobile.errors import InputError, MinimobileError
from minimobile.imaging.pictures import bring_upright
from minimobile.models import classes
from minimobile.models.classes import MobileNetModel
from minimobile.models.inputs import read_pixel_values
from minimobile.models.sources import read_checkpoint
from minimobile.storage.files import user_path

Array = NDArray[Any]
OtherSide = Callable[[Array], Mapping[str, ArrayLike]]


def check(
    source: MobileNetModel | str | Path,
    image: Any = None,
    against: str | OtherSide | Any = "transformers",
    other: MobileNetModel | str | Path | None = None,
    *,
    pixel_values: ArrayLike | None = None,
) -> Report:
    """Run a network here and elsewhere on the same pixels, and name the first layer that differs.

    A layer differs where the other side's values are farther from the float64 definition, evaluated on the other side's
    own input of that layer, than float32 can bring them: a single value, or all of them on average
    (`float32_bounds.largest_excess`). Errors of earlier layers do not count, and no tolerance is chosen. Layers that
    the other side does not show are judged together with the next that it shows. A layer agrees only if weights of
    float16 would have been noticed. Where the other side runs weights of its own, it may also err by as much as those
    allow: two batch norms that fold to the same convolution need not round alike.

    Args:
        source: a model, or what `load` takes.
        image: one picture, in any form that the model's image processor takes.
        against: "transformers", "tensorflow", "litert", "onnxruntime", "reference" (our definitions in NumPy); a
            `torch.nn.Module` in evaluation mode (transformers', torchvision's, timm's or your own MobileNet); or a
            function from pixel values (N, C, H, W) to {layer name: values (N, C, H, W) or (N, C)}.
        other: what the other side runs, where `against` is a name; None: the same source.
        pixel_values: (N, C, H, W), in place of a picture.

    Raises:
        InputError: an argument has no meaning, or the sides have no layer in common.
        FormatError: a source cannot be read.
        UnavailableError: the framework is not installed.
    """
    model, peer = _open(source)
    pixels = _read_pixels(model, image, pixel_values)
    if not isinstance(against, str):
        if other is not None:
            raise InputError("check: expected `other` with a framework's name, got it with a module or a function")
        if is_module(against):
            found, arrays = run_module(against, model.graph, pixels)
            return compare_layers(model, pixels, found, type(against).__name__, their_weights=arrays)
        name = getattr(against, "__name__", "the function given")
        return compare_layers(model, pixels, _call(against, name, pixels), name)
    if other is None:
        return compare_layers(model, pixels, run_peer(against, peer, pixels), against)
    their_model, peer = _open(other)
    report = compare_layers(model, pixels, run_peer(against, peer, pixels), against, their_model)
    if model.processor is None or their_model.processor is None:
        return report
    return dataclasses.replace(report, processors=describe_settings(model.processor, their_model.processor))


def _open(source: MobileNetModel | str | Path) -> tuple[MobileNetModel, Peer]:
    if isinstance(source, MobileNetModel):
        return source, Peer(source)
    checkpoint = read_checkpoint(source)
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    model = model_class.from_checkpoint(checkpoint)
    path = user_path(source, "source")
    return model, Peer(model, path if path.exists() else None, checkpoint.endpoints)


def _call(against: Any, name: str, pixels: Array) -> dict[str, Observed]:
    """Call the function that is the other side, and read what it returns."""
    if not callable(against):
        raise InputError(
            f"against: expected the name of a framework ({', '.join(PEERS)}), a torch.nn.Module or a function, got "
            f"{type(against).__name__}"
        )
    try:
        found = against(pixels.copy())
    except MinimobileError:
        raise
    except Exception as error:
        raise InputError(
            f"{name}: expected a function of pixel values (N, C, H, W) in a NumPy array, it failed on {pixels.shape} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(layer, str) for layer in found):
        raise InputError(
            f"{name}: expected it to return {{layer name: values}}, got {type(found).__name__}; for logits alone let "
            "it return {'classifier': logits}"
        )
    return {layer: _read_values(name, layer, values) for layer, values in found.items()}


def _read_values(against: str, layer: str, values: ArrayLike) -> Observed:
    try:
        found = as_map(np.asarray(values))
    except Exception as error:  # a tensor that is not on the CPU, or wants gradients
        raise InputError(
            f"{against}: {layer}: expected values that NumPy can read, got {type(values).__name__} "
            f"({' '.join(str(error).split())[:200]})"
        ) from None
    if found.ndim != 4 or found.dtype.kind != "f" or 0 in found.shape:
        raise InputError(
            f"{against}: {layer}: expected values (N, C, H, W) or (N, C), got shape {found.shape} of {found.dtype}"
        )
    return Observed(found)


def _read_pixels(model: MobileNetModel, image: Any, pixel_values: ArrayLike | None) -> Array:
    if (image is None) == (pixel_values is None):
        raise InputError("check: expected either a picture or pixel_values, got both or neither")
    if image is not None:
        if model.processor is None:
            raise InputError("check: expected a model with image-processor settings, got none; give pixel_values")
        pixel_values = model.processor(bring_upright(image), return_tensors="np")["pixel_values"]
    return read_pixel_values(pixel_values, model.graph.input_channels, "channels_first")
