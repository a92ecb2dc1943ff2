"""The network of floats that a TFLite file of floats holds: batch norm folded, activations part of the layer before."""

from __future__ import annotations

import dataclasses

import numpy as np

from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.build_graph import build_graph
from minimobile.networks.graph import INPUT
from minimobile.networks.ssd import find_results, settings
from minimobile.operations.passes import fold_batch_norm, fuse_activations, keep_needed
from minimobile.operations.table import is_convolution, layout_weights
from minimobile.quantized.assembly import as_stored, assemble
from minimobile.quantized.ends import add_ends
from minimobile.quantized.network import Network, Tensor
from minimobile.quantized.predictions import join_predictions

_FLOAT = np.dtype(np.float32)


def float_network(checkpoint: Checkpoint, where: str) -> Network:
    """Return the network of a checkpoint's last output for one picture of the config's size, on tensors of float32.

    That of a detector ends in box encodings and scores. Raises FormatError for an activation that has no form in a
    TFLite layer.
    """
    graph = build_graph(checkpoint.config, checkpoint.architecture)
    settled = fuse_activations(fold_batch_norm(keep_needed(graph, find_results(graph))))
    plain = Tensor("", (), _FLOAT)
    kernels = {}
    for node in settled.nodes:
        if is_convolution(node):
            weight, bias = layout_weights(node, checkpoint.weights, np.float32)
            stored = as_stored(node.op, weight)
            kernels[node.name] = (
                dataclasses.replace(plain, name=node.weights["weight"], shape=stored.shape, values=stored),
                dataclasses.replace(plain, name=f"{node.name}.bias", shape=bias.shape, values=bias),
            )
    grids = dict.fromkeys((INPUT, *(node.name for node in settled.nodes)), plain)
    side = checkpoint.config.image_size
    size = (side, side) if isinstance(side, int) else (side[0], side[-1])
    network = assemble(settled, size, grids, kernels, where)
    converter = settings(checkpoint.config).score_converter
    return add_ends(join_predictions(network, settled, checkpoint.config.class_count + 1, converter), "float32")
