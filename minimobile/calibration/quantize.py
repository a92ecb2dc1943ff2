"""From a model in floats to one in integers: `quantize`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.calibration import data_free
from minimobile.calibration.equalization import equalize as equalize_layers
from minimobile.calibration.folding import Doubles, FoldedNetwork, fold, has_statistics
from minimobile.calibration.judgement import compare_layers
from minimobile.calibration.method import BATCH_NORM, DEFAULT_METHOD, Method
from minimobile.calibration.observation import Observed, observe
from minimobile.calibration.pixels import Pictures, Track, expect_pixels, input_size, pixel_range
from minimobile.calibration.ranges import RANGES, Range, include_zero, make_grid, min_max
from minimobile.calibration.rounding import Rounded, round_network
from minimobile.errors import FormatError, InputError
from minimobile.execution.runner import RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import settle_bytes
from minimobile.formats.tflite.tflite_detection import settle_rules
from minimobile.models import classes
from minimobile.models.auto import load
from minimobile.models.base_model import MobileNetModel
from minimobile.networks.graph import INPUT, Node
from minimobile.networks.ssd import find_predictions, find_results, settings
from minimobile.operations.passes import fold_batch_norm, fuse_activations, keep_needed
from minimobile.operations.table import CONVOLUTIONS, is_convolution
from minimobile.quantized.ends import add_ends
from minimobile.quantized.network import Network
from minimobile.quantized.predictions import join_predictions
from minimobile.quantized.validation import check_network


class Calibration(NamedTuple):
    """A network in floats, perhaps equalised, and what is known of its maps: ranges and means by node."""

    folded: FoldedNetwork
    ranges: Mapping[str, Range]
    means: Mapping[str, Doubles]


class Quantized(NamedTuple):
    """The model of integers, what it was made of, and how."""

    model: MobileNetModel
    calibration: Calibration
    rounded: Rounded
    method: Method
    range_choice: str
    is_equalized: bool
    pictures: Pictures | None
    used: int


def quantize(
    model_or_source: MobileNetModel | str | Path,
    pictures: Any = None,
    *,
    per_channel: bool = True,
    ranges: str | None = None,
    equalize: bool | None = None,
    correct_bias: bool = True,
    input_type: str = "uint8",
    num_threads: int | None = None,
) -> MobileNetModel:
    """Return a model that computes in integers what a model in floats does, as from a quantised file.

    The result runs in integers (`run_quantized`, `trace`, ...), and `save("model.tflite")` writes them. The same model
    and pictures give the same bytes on every machine.

    Args:
        model_or_source: a model in floats, or what `load` takes.
        pictures: photographs like those that it will see, fifty to a few hundred: paths, folders, PIL images or arrays,
            or pixel values (N, C, H, W). Those that cannot be read are left out, with a warning. None: batch norm's
            statistics say what values to expect.
        per_channel: int8 with a scale for each output channel; False: uint8 with one for each tensor, for old
            accelerators, which costs accuracy.
        ranges: how the range of each map is chosen: "min_max", "moving_average" or "squared_error" (None: the last), or
            "batch_norm", which needs no picture.
        equalize: make the channels of neighbouring layers alike first. None: not with a scale per channel, and with one
            for all where it loses less on the pictures.
        correct_bias: take off each bias by how much rounding the weights moves a layer's mean.
        input_type: of input and output: "uint8", "int8" or "float32".
        num_threads: None: all cores. The bytes do not depend on it.

    Raises:
        InputError: a model that is quantised already, an option that is none, or no picture that can be used.
        FormatError: a network that has no form in integers, or has numbers that are not finite.
    """
    method = Method(per_channel, ranges, equalize=equalize, correct_bias=correct_bias, input_type=input_type)
    result = quantize_by(model_or_source, pictures, method, num_threads)
    for sentence in result.pictures.skipped if result.pictures else ():
        warnings.warn(sentence, stacklevel=2)
    for sentence in result.rounded.notes:
        warnings.warn(sentence, stacklevel=2)
    return result.model


def quantize_by(
    model_or_source: MobileNetModel | str | Path,
    pictures: Any = None,
    method: Method = DEFAULT_METHOD,
    num_threads: int | None = None,
    track: Track = iter,
) -> Quantized:
    """Do what `quantize` does, by a `method`, and return all that there is to say of it. `track` shows the progress."""
    model = load_floats(model_or_source, num_threads)
    checkpoint, notes = settle_rules(model.to_checkpoint())
    where = checkpoint.provenance.get("source", checkpoint.architecture)
    found = None if pictures is None else Pictures(model, pictures, track)
    choice = method.choose_ranges(found is not None)
    check_activations(model, where)
    is_equalized, calibration, rounded = _round_best(model, checkpoint, found, method, choice, num_threads, where)
    settled = as_checkpoint(checkpoint, calibration.folded, rounded, method, where)
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    made = model_class.from_checkpoint(settled, options=RunOptions(num_threads=num_threads))
    rounded = dataclasses.replace(rounded, notes=(*notes, *rounded.notes))
    used = found.used if found is not None else 0
    return Quantized(made, calibration, rounded, method, choice, is_equalized, found, used)


def _round_best(
    model: MobileNetModel,
    checkpoint: Checkpoint,
    pictures: Pictures | None,
    method: Method,
    choice: str,
    num_threads: int | None,
    where: str,
) -> tuple[bool, Calibration, Rounded]:
    """Return whether channels were made alike, the network and its integers.

    Where neither way is asked for and there is one scale for all channels, that is tried which loses less of the
    network's result on the pictures; without pictures they are made alike.
    """
    ways = [method.is_equalized] if method.equalize is not None or method.per_channel or not pictures else [False, True]
    best: tuple[float, bool, Calibration, Rounded] | None = None
    for is_equalized in ways:
        way = dataclasses.replace(method, equalize=is_equalized)
        calibration = calibrate(model, checkpoint, pictures, way, choice, num_threads, where)
        rounded = round_calibrated(calibration, way, checkpoint, input_size(model), where)
        noise = 0.0
        if len(ways) > 1 and pictures is not None:
            judged = compare_layers(calibration.folded, rounded.network, pictures, num_threads)
            noise = -sum(judged[name].signal_to_noise for name in calibration.folded.graph.outputs)
        if best is None or noise < best[0]:
            best = noise, is_equalized, calibration, rounded
    assert best is not None
    return best[1:]


def load_floats(model_or_source: MobileNetModel | str | Path, num_threads: int | None) -> MobileNetModel:
    """Return a model in floats. Raises InputError for one of integers, or one that was trained for quantisation."""
    model = model_or_source
    if not isinstance(model, MobileNetModel):
        model = load(model, num_threads=num_threads)
    if model.is_quantized:
        raise InputError("quantize: expected a model in floats, got one that runs in integers already")
    if model.to_checkpoint().ranges:
        raise InputError(
            "quantize: expected a network of plain floats, got one that was trained for quantisation; "
            "load it with quantized=True, and save that"
        )
    return model


def calibrate(
    model: MobileNetModel,
    checkpoint: Checkpoint,
    pictures: Pictures | None,
    method: Method,
    choice: str,
    num_threads: int | None,
    where: str,
) -> Calibration:
    """Return the network that is to be rounded, with a range and means for each of its maps."""
    graph = model.graph
    folded = fold(graph, checkpoint.weights)
    for node in folded.convolutions():  # before any picture is read
        for role in ("weight", "bias"):
            if not np.isfinite(folded.weights[node.weights[role]]).all():
                raise FormatError(f"{where}: {node.name}: expected weights that are finite numbers, found others")
    channels = model.config.num_channels
    limits = pixel_range(checkpoint.processor, channels)
    settled = None if limits is None else include_zero((limits[0].min(), limits[1].max()))
    if choice == BATCH_NORM:
        if not has_statistics(graph, checkpoint.weights):
            raise FormatError(
                f"{where}: expected batch norm's statistics of training, found them folded in; give pictures"
            )
        if settled is None or checkpoint.processor is None:
            raise InputError(f"{where}: expected image-processor settings, found none; give pictures")
        pixels = expect_pixels(checkpoint.processor, channels, settled)
        if method.is_equalized:
            expected = data_free.expect(folded, pixels, where)
            folded = equalize_layers(folded, {name: moments.high for name, moments in expected.items()})
        moments = data_free.expect(folded, pixels, where)
        ranges = {name: data_free.batch_norm_range(each) for name, each in moments.items()}
        means = {name: each.mean for name, each in moments.items()}
    else:
        assert pictures is not None
    if pictures is not None:
        seen = observe(folded, pictures, num_threads, where)
        if method.is_equalized and choice != BATCH_NORM:
            folded = equalize_layers(folded, {name: each.maxima.astype(np.float64) for name, each in seen.items()})
            seen = observe(folded, pictures, num_threads, where)
        means = {name: each.means for name, each in seen.items()}
        if choice != BATCH_NORM:
            ranges = _choose_ranges(folded, seen, choice)
    return Calibration(folded, ranges if settled is None else {**ranges, INPUT: settled}, means)


def _choose_ranges(folded: FoldedNetwork, seen: Mapping[str, Observed], choice: str) -> dict[str, Range]:
    """Return the range of every map.

    The network's result keeps its largest values, for these are what is asked for. By squared error, so do maps without
    values below zero: what is cut off on one side alone moves the mean, and adds up from layer to layer.
    """
    kept = set(folded.graph.outputs)
    if choice == "squared_error":
        kept |= {name for name, each in seen.items() if each.minimum >= 0}
    return {name: (min_max if name in kept else RANGES[choice])(each) for name, each in seen.items()}


def round_calibrated(
    calibration: Calibration, method: Method, checkpoint: Checkpoint, size: tuple[int, int], where: str
) -> Rounded:
    """Return the integers of a calibrated network."""
    means = calibration.means if method.correct_bias else None
    scheme = method.scheme()
    offset = 0.0
    limits = pixel_range(checkpoint.processor, calibration.folded.graph.input_channels)
    if limits is not None and _is_single(limits):
        grid = make_grid(INPUT, calibration.ranges[INPUT], scheme.dtype)
        first_byte = int(np.iinfo(scheme.dtype).min)
        offset = float(grid.scale) * (first_byte - grid.zero) - float(limits[0][0])
    return round_network(calibration.folded, calibration.ranges, scheme, means, size, where, offset)


def as_checkpoint(
    checkpoint: Checkpoint, folded: FoldedNetwork, rounded: Rounded, method: Method, where: str
) -> Checkpoint:
    """Return the checkpoint of a network of integers: its weights are what the integers stand for."""
    config = checkpoint.config
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    graph = model_class.build(config)
    is_detector = any(find_predictions(graph))  # whose boxes are found among floats
    joined = join_predictions(rounded.network, graph, config.class_count + 1, settings(config).score_converter)
    network = add_ends(joined, method.input_type, "float32" if is_detector else None)
    check_network(network, where)
    weights = {**checkpoint.weights}
    for node in fuse_activations(fold_batch_norm(keep_needed(graph, find_results(graph)))).nodes:
        if is_convolution(node):
            weights |= _dequantized(node, network, checkpoint.weights)
    return dataclasses.replace(
        checkpoint,
        weights=weights,
        processor=_settle_processor(checkpoint.processor, network),
        endpoints={node.name: node.name for node in graph.nodes if node.name in network.tensors},
        quantized=network,
    )


def _dequantized(node: Node, network: Network, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a layer as floats; its batch norm becomes an idle one that adds the bias."""
    kernel, bias = network.tensors[node.weights["weight"]], network.tensors[f"{node.name}.bias"]
    assert kernel.values is not None
    assert bias.values is not None
    scales = kernel.scales.astype(np.float64)
    if CONVOLUTIONS[node.op].is_by_channel:
        steps = kernel.values[0].transpose(2, 0, 1)[:, None]  # (1, K_h, K_w, C) -> (C, 1, K_h, K_w)
    else:
        steps = kernel.values.transpose(0, 3, 1, 2)  # (C_out, K_h, K_w, C_in) -> (C_out, C_in, K_h, K_w)
    numbers = (steps.astype(np.int64) - int(kernel.zero_points[0])) * scales.reshape(-1, 1, 1, 1)
    shift = (bias.values * bias.scales.astype(np.float64)).astype(np.float32)
    trained = node.weights["weight"]
    found = {trained: np.ascontiguousarray(numbers.astype(np.float32).reshape(weights[trained].shape))}
    if "scale" not in node.weights:
        return found | {node.weights["bias"]: shift}
    ones = np.ones_like(shift)
    idle = {"scale": ones, "shift": shift, "mean": 0 * ones}
    idle["variance"] = (np.ones(len(shift)) - node.attributes["epsilon"]).astype(np.float32)
    return found | {node.weights[role]: values for role, values in idle.items()}


def _settle_processor(settings: Mapping[str, Any] | None, network: Network) -> Mapping[str, Any] | None:
    """Return settings by which a picture's bytes come to the input as they are, where all channels are alike."""
    grid = network.tensors[INPUT]
    limits = pixel_range(settings, grid.shape[-1])
    if settings is None or limits is None or not _is_single(limits):
        return settings
    zero = grid.zero - int(np.iinfo(grid.dtype).min)
    flags = {"do_rescale": True, "do_normalize": True}
    return {**settle_bytes(settings, float(grid.scale), zero, grid.shape[-1]), **flags}


def _is_single(limits: tuple[Doubles, ...]) -> bool:
    """Tell whether all channels have one range of pixel values, with 0 in it: then a byte can stand for each."""
    low, high = limits
    return len(set(low)) == 1 and len(set(high)) == 1 and low[0] <= 0 <= high[0]


def check_activations(model: MobileNetModel, where: str) -> None:
    """Raise FormatError for an activation that no layer of integers has, before any work is done."""
    for node in fuse_activations(fold_batch_norm(model.graph)).nodes:
        if "function" in node.attributes:
            function = node.attributes["function"]
            raise FormatError(f"{where}: {node.name}: expected relu6, relu or no activation, found {function}")
