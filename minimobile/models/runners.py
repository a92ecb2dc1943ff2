"""What runs a checkpoint that holds integers."""

from __future__ import annotations

from minimobile.errors import InputError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.quantized.network import Network
from minimobile.quantized.runner import QuantizedRunner


def make_runner(
    checkpoint: Checkpoint, engine: str, dtype: str, num_threads: int | None, rounding: str
) -> QuantizedRunner:
    """Return the runner of a checkpoint that holds integers. Raises what its reader had to say where it does not."""
    network = checkpoint.quantized
    if not isinstance(network, Network):
        assert network is not None, "a checkpoint of floats"
        raise network
    if dtype != "float32":
        raise InputError(f"dtype: expected 'float32' for what a quantised network computes, got {dtype!r}")
    return QuantizedRunner(network, checkpoint.endpoints, rounding=rounding, engine=engine, num_threads=num_threads)
