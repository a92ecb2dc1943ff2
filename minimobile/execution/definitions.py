"""Runs a graph on the NumPy definitions, node by node: float32 with the engine's bits, or float64 for the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.runner import DEFAULTS, DataFormat, FloatRunner, Pixels, RunOptions
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.table import operation_of


class ReferenceRunner(FloatRunner):
    """A graph with weights on the definitions, by one thread.

    `weights` maps the graph's canonical names to arrays; the type of pixel values and results is that of `options`.
    """

    def __init__(self, graph: Graph, weights: Weights, options: RunOptions = DEFAULTS) -> None:
        super().__init__(graph)
        self.dtype = np.dtype(options.dtype)
        self._weights = weights

    def run(
        self, pixel_values: Pixels, outputs: Sequence[str], data_format: DataFormat = "channels_first"
    ) -> dict[str, NDArray[Any]]:
        """Compute the named nodes; see `Runner.run`."""
        x = np.asarray(pixel_values)
        x = x if data_format == "channels_last" else x.transpose(0, 2, 3, 1)
        results = run_reference(self.graph, self._weights, x.astype(self.dtype), outputs)
        if data_format == "channels_first":
            results = {name: np.ascontiguousarray(y.transpose(0, 3, 1, 2)) for name, y in results.items()}
        return results

    def time_steps(self, pixel_values: NDArray[Any], data_format: DataFormat) -> dict[tuple[str, ...], float]:
        """Return nothing: the definitions have no program."""
        return {}


def run_reference(
    graph: Graph, weights: Weights, x: NDArray[Any], outputs: Sequence[str], fold: bool = True
) -> dict[str, NDArray[Any]]:
    """Run a graph on the definitions of `reference.py`, node by node. `fold=False` keeps batch norm as it is trained.

    Shapes: x (N, H, W, C), float32 or float64, and the results likewise.
    """
    graph = keep_needed(graph, outputs)
    if fold:
        graph = fold_batch_norm(graph)
    values = {INPUT: x}
    for node in graph.nodes:
        values[node.name] = apply_node(node, weights, [values[name] for name in node.inputs])
    return {name: values[name] for name in outputs}


def apply_node(node: Node, weights: Weights, inputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Compute one node on the definitions of `reference.py`. Shapes: inputs and result (N, H, W, C), of one dtype."""
    return operation_of(node).define(node, weights, inputs)
