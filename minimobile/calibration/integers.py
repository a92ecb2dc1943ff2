"""What a network of integers is as a checkpoint: the weights that it stands for, and how pictures come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.calibration.pixels import is_single, pixel_range
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import settle_bytes
from minimobile.models import classes
from minimobile.models.base_model import MobileNetModel
from minimobile.networks.graph import INPUT, Node
from minimobile.networks.ssd import find_predictions, find_results, settings
from minimobile.operations.passes import fold_batch_norm, fuse_activations, keep_needed
from minimobile.operations.table import CONVOLUTIONS, is_convolution
from minimobile.quantized.ends import add_ends
from minimobile.quantized.network import Network
from minimobile.quantized.predictions import join_predictions
from minimobile.quantized.validation import check_network


def as_checkpoint(checkpoint: Checkpoint, rounded: Network, input_type: str, where: str) -> Checkpoint:
    """Return the checkpoint of a network of integers: its weights are what the integers stand for.

    `input_type` is that of its input and, but for a detector, of its output.
    """
    config = checkpoint.config
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    graph = model_class.build(config)
    is_detector = any(find_predictions(graph))  # whose boxes are found among floats
    joined = join_predictions(rounded, graph, config.class_count + 1, settings(config).score_converter)
    network = add_ends(joined, input_type, "float32" if is_detector else None)
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
    if settings is None or limits is None or not is_single(limits):
        return settings
    zero = grid.zero - int(np.iinfo(grid.dtype).min)
    flags = {"do_rescale": True, "do_normalize": True}
    return {**settle_bytes(settings, float(grid.scale), zero, grid.shape[-1]), **flags}
