"""A GraphDef whose functions are put in the place of their calls: one flat graph of plain nodes.

Source: function.proto of TensorFlow (tensorflow/core/framework). A node of a called function has the call's name and a
slash before its own, as TensorFlow's own inlining names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minimobile.errors import FormatError
from minimobile.formats.protobuf import as_view, fields, read_text
from minimobile.formats.tensorflow.graph_def import NODE_LIMIT, GraphNode, read_node

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
DEPTH_LIMIT = 64  # calls within calls; a Keras model in another has six
FUNCTION_LIMIT = 5_000
NAME_LIMIT = 4_000  # characters, of a name with all its calls


class Function(NamedTuple):
    """One function: its arguments and results by name, in order, what its results are, and its nodes."""

    arguments: tuple[str, ...]
    results: tuple[str, ...]
    returned: Mapping[str, str]
    nodes: tuple[GraphNode, ...]


def read_library(graph: memoryview, where: str) -> dict[str, Function]:
    """Return the functions of a GraphDef by name."""
    found: dict[str, Function] = {}
    for number, _, library in fields(graph, where):
        if number != 2:
            continue
        for part, _, value in fields(as_view(library, where), where, 1):
            if part == 1:
                name, function = _read_function(as_view(value, where), where)
                found[name] = function
            if len(found) > FUNCTION_LIMIT:
                raise FormatError(f"{where}: expected at most {FUNCTION_LIMIT} functions, found more")
    return found


def _read_function(data: memoryview, where: str) -> tuple[str, Function]:
    name = ""
    ends: dict[int, list[str]] = {2: [], 3: []}
    returned: dict[str, str] = {}
    nodes: list[GraphNode] = []
    for number, _, value in fields(data, where, 2):
        if number == 1:
            for part, _, inner in fields(as_view(value, where), where, 3):
                if part == 1:
                    name = read_text(inner, where)
                elif part in ends:
                    texts = (read_text(x, where) for n, _, x in fields(as_view(inner, where), where, 4) if n == 1)
                    ends[part].append(next(texts, ""))
        elif number == 3:
            nodes.append(read_node(as_view(value, where), where))
            if len(nodes) > NODE_LIMIT:
                raise FormatError(f"{where}: expected at most {NODE_LIMIT} nodes in a function, found more")
        elif number == 4:
            entry = {part: read_text(inner, where) for part, _, inner in fields(as_view(value, where), where, 3)}
            returned[entry.get(1, "")] = entry.get(2, "")
    return name, Function(tuple(ends[2]), tuple(ends[3]), returned, tuple(nodes))


def inline(
    nodes: Iterable[GraphNode], outputs: Iterable[str], library: Mapping[str, Function], where: str
) -> tuple[tuple[GraphNode, ...], tuple[str, ...]]:
    """Return the nodes with every call replaced by the function's own nodes, and what the outputs are then called.

    Raises FormatError for functions that are not there, calls deeper than `DEPTH_LIMIT`, and more than `NODE_LIMIT`
    calls or nodes in all.
    """
    inlining = _Inlining(library, where)
    return inlining.run(tuple(nodes)), tuple(map(inlining.resolve, outputs))


class _Frame(NamedTuple):
    """Nodes to be put in: what stands before their names, and the tensors of the caller by argument."""

    nodes: tuple[GraphNode, ...]
    prefix: str
    arguments: Mapping[str, str] | None
    depth: int


class _Inlining:
    def __init__(self, library: Mapping[str, Function], where: str) -> None:
        self.library = library
        self.where = where
        self.flat: dict[str, GraphNode] = {}
        self.results: dict[str, str] = {}  # result of a call -> tensor within the function

    def run(self, nodes: tuple[GraphNode, ...]) -> tuple[GraphNode, ...]:
        waiting = [_Frame(nodes, "", None, 0)]
        count = 0
        while waiting:
            frame = waiting.pop()
            count += 1
            if count > NODE_LIMIT:  # functions that only call two others make no node, and 2**64 calls
                raise FormatError(f"{self.where}: expected at most {NODE_LIMIT} calls of functions, found more")
            if frame.depth > DEPTH_LIMIT:
                raise FormatError(f"{self.where}: expected calls of functions at most {DEPTH_LIMIT} deep, found more")
            for node in frame.nodes:
                name = frame.prefix + node.name
                if len(name) > NAME_LIMIT:
                    raise FormatError(f"{self.where}: expected names of at most {NAME_LIMIT} characters, found more")
                inputs = tuple(_find_tensor(tensor, frame) for tensor in node.inputs)
                moved = dataclasses.replace(node, name=name, inputs=inputs)
                called = self.find_called(node)
                if called is None:
                    self.add(moved)
                else:
                    waiting.append(self.enter(moved, called, frame.depth + 1))
        return tuple(
            dataclasses.replace(node, inputs=tuple(map(self.resolve, node.inputs))) for node in self.flat.values()
        )

    def add(self, node: GraphNode) -> None:
        if node.name in self.flat or len(self.flat) >= NODE_LIMIT:
            found = f"two of {node.name[:80]!r}" if node.name in self.flat else "more"
            raise FormatError(
                f"{self.where}: expected at most {NODE_LIMIT} nodes, each with its own name, found {found}"
            )
        self.flat[node.name] = node

    def find_called(self, node: GraphNode) -> str | None:
        """Return the function that a node calls."""
        if node.op in self.library:
            return node.op
        if node.op not in CALLS:
            return None
        attribute = node.attributes.get("f")
        content = attribute if isinstance(attribute, memoryview) else memoryview(b"")
        for number, _, value in fields(content, self.where, 3):
            if number == 10:
                name = fields(as_view(value, self.where), self.where, 4)
                return next((read_text(text, self.where) for part, _, text in name if part == 1), "")
        return ""

    def enter(self, node: GraphNode, called: str, depth: int) -> _Frame:
        function = self.library.get(called)
        if function is None or len(function.arguments) != len(node.inputs):
            raise FormatError(
                f"{self.where}: node {node.name[:80]}: expected a function of {len(node.inputs)} arguments in the "
                f"library, found {'none' if function is None else len(function.arguments)} ({called[:80]!r})"
            )
        if len(self.results) > NODE_LIMIT:
            raise FormatError(f"{self.where}: expected at most {NODE_LIMIT} results of functions, found more")
        arguments = dict(zip(function.arguments, node.inputs, strict=True))
        frame = _Frame(function.nodes, f"{node.name}/", arguments, depth)
        for index, result in enumerate(function.results):
            tensor = _find_tensor(function.returned.get(result, "").removesuffix(":0"), frame)
            self.results[f"{node.name}:{index}" if index else node.name] = tensor
        return frame

    def resolve(self, tensor: str) -> str:
        """Return the tensor that a result of a call stands for."""
        for _ in range(2 * DEPTH_LIMIT):
            if tensor not in self.results:
                return tensor
            tensor = self.results[tensor]
        raise FormatError(f"{self.where}: expected results that nodes compute, found a cycle of functions")


def _find_tensor(tensor: str, frame: _Frame) -> str:
    """Return a tensor's name in the flat graph: within functions, `node:result:1` is the second of a list.

    A result beyond the first is only asked for of what makes lists, and of what no network here needs.
    """
    if frame.arguments is None:
        return tensor
    if tensor in frame.arguments:
        return frame.arguments[tensor]
    node, _, rest = tensor.partition(":")
    index = rest.partition(":")[2]
    return f"{frame.prefix}{node}" + (f":{index}" if index not in ("", "0") else "")
