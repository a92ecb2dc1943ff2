"""The order in which the nodes of a stranger's graph can be computed, whatever format they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from minimobile.errors import FormatError
from minimobile.formats.matching.translation import GraphOperation

NodeType = TypeVar("NodeType", bound=GraphOperation)


def sort_by_inputs(
    nodes: Sequence[NodeType], find_maker: Callable[[str], NodeType | None], where: str
) -> list[NodeType]:  # fmt: skip
    """Return nodes of any format so that each comes after those that make its inputs; refuse a cycle.

    Otherwise they stay as they are. `find_maker` returns the node of a tensor, None for what no node makes.
    """
    done: dict[str, NodeType] = {}
    for first in nodes:
        if first.name in done:
            continue
        path = {first.name: (first, iter(first.inputs))}  # a stack: recursion could go too deep
        while path:
            name, (node, rest) = next(reversed(path.items()))
            for tensor in rest:
                maker = find_maker(tensor)
                if maker is None or maker.name in done:
                    continue
                if maker.name in path:
                    raise FormatError(f"{where}: expected a graph without cycles, found one through node {maker.title}")
                path[maker.name] = (maker, iter(maker.inputs))
                break
            else:
                del path[name]
                done[name] = node
    return list(done.values())
