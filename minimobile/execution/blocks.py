"""Which convolutions are done together: the depthwise separable convolutions of V1, the inverted residuals of V2."""

from __future__ import annotations

from minimobile.networks.graph import Graph, Node
from minimobile.operations.passes import count_consumers
from minimobile.operations.table import operation_of


def find_blocks(graph: Graph) -> list[tuple[Node, ...]]:
    """Return the blocks of a graph in their order: what lies between their convolutions nobody else asks for.

    A block is a depthwise convolution and the pointwise one after it, behind the expansion if there is one. That is any
    convolution before the depthwise one which does not project what another one has filtered: the convolutions of V1,
    depthwise and pointwise in turn, are pairs behind its first.
    """
    consumers = count_consumers(graph)
    blocks: list[tuple[Node, ...]] = []
    projections: set[str] = set()
    for before, node, after in zip((None, *graph.nodes), graph.nodes, graph.nodes[1:], strict=False):
        is_projected = operation_of(after).is_projection and after.inputs[0] == node.name
        if not (operation_of(node).filters_rows and is_projected and consumers[node.name] == 1):
            continue
        is_expanded = (
            before is not None
            and operation_of(before).is_expansion
            and len(before.inputs) == 1
            and node.inputs == (before.name,)
            and consumers[before.name] == 1
            and before.name not in projections
        )
        blocks.append((before, node, after) if before is not None and is_expanded else (node, after))
        projections.add(after.name)
    return blocks
