"""Cross-checking: the same pixels through us and through another framework, layer by layer, and what differs first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray

from minimobile.comparison.answers import compare_answers
from minimobile.comparison.layer_comparison import compare_layers
from minimobile.comparison.memory_sides import OtherSide, run_in_memory
from minimobile.comparison.peers import Peer, run_peer
from minimobile.comparison.pixels import compare_processors, describe_settings
from minimobile.comparison.report import Report
from minimobile.errors import InputError
from minimobile.imaging.pictures import bring_upright
from minimobile.models import classes
from minimobile.models.classes import MobileNetModel
from minimobile.models.inputs import read_pixel_values
from minimobile.models.sources import read_checkpoint
from minimobile.networks.graph import INPUT
from minimobile.storage.files import user_path

Array = NDArray[Any]


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

    To show its layers, ONNX Runtime and OpenVINO compute a file of integers otherwise than as it is. Where that leaves
    a doubt, the last layer is compared alone, too, and takes it away if it is ours bit for bit.

    Args:
        source: a model, or what `load` takes.
        image: one picture, in any form that the model's image processor takes.
        against: "transformers", "tensorflow", "litert", "onnxruntime", "openvino", "reference" (our definitions in
            NumPy): a framework runs the source's own file where it reads such files, else our graph. Or a
            `torch.nn.Module` in evaluation mode (transformers', torchvision's, timm's or your own MobileNet), a
            `keras.Model`, an `onnxruntime.InferenceSession` (its outputs alone are seen; give the file for all layers);
            or a function from pixel values (N, C, H, W) to {layer name: values (N, C, H, W) or (N, C)}.
        other: what the other side runs, where `against` is a name; None: the same source.
        pixel_values: (N, C, H, W), in place of a picture.

    Raises:
        InputError: an argument has no meaning, or the sides have no layer in common.
        FormatError: a source cannot be read.
        UnavailableError: the framework is not installed.
    """
    model, peer = open_source(source)
    pixels = read_pixels(model, image, pixel_values)
    if not isinstance(against, str):
        if other is not None:
            raise InputError("check: expected `other` with a framework's name, got it with a module or a function")
        name, found, arrays = run_in_memory(against, model.graph, pixels)
        return compare_layers(model, pixels, found, name, their_weights=arrays)
    if other is None:
        report = compare_layers(model, pixels, run_peer(against, peer, pixels), against)
        answers = None if report.agrees is not None else compare_answers(model, peer, against, pixels)
        if answers is None:
            return report
        return dataclasses.replace(report, answers=answers, doubt=report.doubt if answers.differing else None)
    their_model, peer = open_source(other)
    if their_model.config.model_type != model.config.model_type:
        raise InputError(
            f"other: expected a {type(model).__name__.partition('For')[0]}, as the source is, to compare layers of the "
            f"same names, got a {type(their_model).__name__}"
        )
    names = {node.name for node in model.graph.nodes} | {INPUT}
    found = {layer: observed for layer, observed in run_peer(against, peer, pixels).items() if layer in names}
    report = compare_layers(model, pixels, found, against, their_model)
    if model.processor is None or their_model.processor is None:
        return report
    pair = model.processor, their_model.processor
    fed = None if image is None else compare_processors(*pair, bring_upright(image))
    return dataclasses.replace(report, processors=describe_settings(*pair), pixels=fed)


def open_source(source: MobileNetModel | str | Path) -> tuple[MobileNetModel, Peer]:
    """Return the model, and what another runtime is to run; `source` is a model, or what `load` takes."""
    if isinstance(source, MobileNetModel):
        return source, Peer(source)
    checkpoint = read_checkpoint(source)
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    model = model_class.from_checkpoint(checkpoint)
    path = user_path(source, "source")
    return model, Peer(model, path if path.exists() else None, checkpoint.endpoints)


def read_pixels(model: MobileNetModel, image: Any, pixel_values: ArrayLike | None) -> Array:
    """Return pixel values (N, C, H, W), given as such or as a picture. Raises InputError for neither or both."""
    if (image is None) == (pixel_values is None):
        raise InputError("check: expected either a picture or pixel_values, got both or neither")
    if image is not None:
        if model.processor is None:
            raise InputError("check: expected a model with image-processor settings, got none; give pixel_values")
        pixel_values = model.processor(bring_upright(image), return_tensors="np")["pixel_values"]
    return read_pixel_values(pixel_values, model.graph.input_channels, "channels_first")
