"""The truth that float32 is judged by: a graph, node by node, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.graph import INPUT, Graph, Node, needed_nodes
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_nodes
from minimobile.operations.table import operation_of

Array = NDArray[Any]


def run_float64(graph: Graph, weights: Weights, x: Array, outputs: Sequence[str]) -> dict[str, Array]:
    """Evaluate named nodes in float64, batch norm kept as it is trained. Shapes: x (N, H, W, C), and the results.

    It is folded where training rounded the folded weights.
    """
    values = run_nodes(fold_rounded(needed_nodes(graph, outputs)), weights, {INPUT: x.astype(np.float64)})
    return {name: values[name] for name in outputs}


def run_nodes(nodes: Iterable[Node], weights: Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate nodes in float64, in order; returns all values and the inputs. Shapes: (N, H, W, C)."""
    values = dict(inputs)
    for node in nodes:
        values[node.name] = evaluate(node, weights, [values[name] for name in node.inputs])
    return values


def evaluate(node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
    """Compute one node in float64; the order of summation is nobody's. Shapes: inputs and result (N, H, W, C)."""
    with np.errstate(all="ignore"):
        return operation_of(node).evaluate(node, weights, inputs)


def fold_rounded(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Fold batch norm where training rounded the folded weights: nothing else gives the same numbers."""
    pairs = zip(nodes, fold_nodes(nodes), strict=True)
    return tuple(folded if "weight_quantization" in folded.attributes else node for node, folded in pairs)
