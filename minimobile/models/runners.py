"""Which runner a checkpoint and the options ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from minimobile.errors import ConfigError, FormatError
from minimobile.execution.definitions import ReferenceRunner
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import Runner, RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.graph import Graph
from minimobile.operations.operation import Weights

FLOAT_RUNNERS: Mapping[str, Callable[[Graph, Weights, RunOptions], Runner]] = {
    "compiled": CompiledRunner,
    "reference": ReferenceRunner,
}


def make_runner(checkpoint: Checkpoint, graph: Graph, options: RunOptions) -> Runner:
    """Return what runs `graph` with a checkpoint's weights, or the checkpoint's integers in its place.

    Raises FormatError or ConfigError where there are integers that cannot be run, InputError for options that they
    cannot fulfil.
    """
    if options.dequantize or not checkpoint.is_quantized:
        return FLOAT_RUNNERS[options.engine](graph, checkpoint.weights, options)
    if checkpoint.obstacle is not None:
        if checkpoint.obstacle.is_of_config:
            raise ConfigError(checkpoint.obstacle.sentence)
        raise FormatError(
            f"{checkpoint.obstacle.sentence}; dequantize=True runs what its integers stand for as floats, and "
            "`minimobile convert SRC NAME.h5` writes that"
        )
    assert checkpoint.quantized is not None
    from minimobile.quantized.runner import QuantizedRunner  # with kernels that nothing else needs

    return QuantizedRunner(graph, checkpoint.quantized, checkpoint.endpoints, options)
