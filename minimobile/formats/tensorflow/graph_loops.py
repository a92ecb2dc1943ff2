"""`tf.map_fn` over the pictures of a batch, as graphs of TensorFlow 1 have it, replaced by what it does to each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from minimobile.formats.tensorflow.graph_constants import IDENTITIES
from minimobile.formats.tensorflow.graph_def import GraphNode, find_node_name

LOOP_OPERATIONS = frozenset({
    "Enter", "Exit", "LoopCond", "NextIteration", "TensorArrayGatherV3", "TensorArrayReadV3", "TensorArrayScatterV3",
    "TensorArraySizeV3", "TensorArrayV3", "TensorArrayWriteV3",
})  # fmt: skip
HOPS = 32  # identities and the like in a row; real graphs have ten
_ON_THE_WAY = ("Enter", "Exit", "Switch", *IDENTITIES)


def unroll(nodes: Mapping[str, GraphNode]) -> dict[str, GraphNode]:
    """Return the nodes with each loop's ends as identities, between which its body lies.

    What is read of an array of tensors is what was scattered over it, and what is gathered from one is what the body
    wrote to it: so an operation on one picture becomes one on all. The axis of the batch is not followed. Loops
    that are built in another way stay as they are.
    """
    unrolled = dict(nodes)
    for node in nodes.values():
        source = None
        if node.op == "TensorArrayReadV3" and len(node.inputs) == 3:
            scatter = _skip(nodes, node.inputs[2])
            if scatter.op == "TensorArrayScatterV3" and len(scatter.inputs) == 4:
                source = scatter.inputs[2]
        elif node.op == "TensorArrayGatherV3" and len(node.inputs) == 3:
            source = _find_written(nodes, node.inputs[2])
        if source is not None:
            attributes: dict[str, Any] = {}
            unrolled[node.name] = dataclasses.replace(node, op="Identity", inputs=(source,), attributes=attributes)
    return unrolled


def _find_written(nodes: Mapping[str, GraphNode], flow: str) -> str | None:
    """Return what a loop's body writes in each turn to the array whose flow leaves the loop."""
    merge = _skip(nodes, flow)
    if merge.op != "Merge":
        return None
    for tensor in merge.inputs:
        turn = nodes[find_node_name(tensor)]
        if turn.op == "NextIteration" and turn.inputs:
            write = _skip(nodes, turn.inputs[0])
            if write.op == "TensorArrayWriteV3" and len(write.inputs) == 4:
                return write.inputs[2]
    return None


def _skip(nodes: Mapping[str, GraphNode], tensor: str) -> GraphNode:
    """Return the first node before a tensor that is no entrance, exit or copy."""
    node = nodes[find_node_name(tensor)]
    for _ in range(HOPS):
        if node.op not in _ON_THE_WAY or not node.inputs:
            break
        node = nodes[find_node_name(node.inputs[0])]
    return node
