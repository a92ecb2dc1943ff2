"""What becomes of a file's integers where another config stands in for its own."""

from __future__ import annotations

import dataclasses

from minimobile.formats.checkpoint import Checkpoint, Obstacle
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import Config


def settle_quantized(checkpoint: Checkpoint, own_config: Config) -> Checkpoint:
    """Return a checkpoint whose config is not its source's own: its integers stay where both make the same graph."""
    if checkpoint.quantized is None:
        return checkpoint
    changed, own = (build_graph(config, checkpoint.architecture) for config in (checkpoint.config, own_config))
    if changed == own:
        return checkpoint
    where = checkpoint.provenance.get("source", checkpoint.architecture)
    sentence = (
        f"{where}: expected a config with the graph of this quantised network, got one with another; load it with "
        "dequantize=True"
    )
    return dataclasses.replace(checkpoint, quantized=None, obstacle=Obstacle(sentence, is_of_config=True))
