"""TensorFlow's GraphDef: nodes with operation, inputs and attributes; an attribute is decoded when it is asked for.

Source: graph.proto, node_def.proto, versions.proto of TensorFlow (tensorflow/core/framework).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.node_order import sort_by_inputs
from minimobile.formats.protobuf import as_view, fields, read_text
from minimobile.formats.tensorflow.tensor_proto import Shape, Tensor, read_attribute

NODE_LIMIT = 20_000  # the largest exports of DeepLab have 2,000
ENTRY_LIMIT = 1_000  # inputs or attributes of one node
# TensorFlow's own rules, and an end to the length.
NODE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]{,399}")
OPERATION_NAME = re.compile(r"[A-Z_][A-Za-z0-9_>]{,99}")

Value = TypeVar("Value")


@dataclass(frozen=True)
class GraphNode:
    """One node. `inputs` name tensors: `node` its first result, `node:1` its second. Control inputs are left out.

    Attributes are protobuf's bytes, or what they say. The methods decode one each: `default` where the node lacks it,
    FormatError where it has another type.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    where: str

    @property
    def title(self) -> str:
        """Return what messages call the node."""
        return self.name

    def integer(self, name: str, default: int) -> int:
        """Return an integer."""
        return self._decode(name, int, default)

    def number(self, name: str, default: float) -> float:
        """Return a floating-point number as the shortest decimal that is the same in the file's single precision."""
        return float(str(np.float32(self._decode(name, float, default))))

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean."""
        return self._decode(name, bool, default)

    def text(self, name: str, default: str) -> str:
        """Return a text, or the name of a type."""
        return self._decode(name, str, default)

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a list of integers."""
        found = self._decode(name, tuple, default)
        return tuple(entry for entry in found if isinstance(entry, int))

    def tensor(self, name: str) -> Tensor:
        """Return a constant."""
        return self._decode(name, Tensor, Tensor("float32", (), None))

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a shape, or the first of a list of shapes: -1 for what is not known, None for no known rank."""
        found = self._decode(name, tuple, Shape(None))
        first = found if isinstance(found, Shape) else next(iter(found), None)
        return first.sizes if isinstance(first, Shape) else None

    def _decode(self, name: str, expected: type[Value], default: Value) -> Value:
        if name not in self.attributes:
            return default
        where = f"{self.where}: node {self.name}: {name}"
        value = self.attributes[name]
        if isinstance(value, memoryview):
            value = read_attribute(value, where)
        if value is None:
            return default
        is_stray_bool = isinstance(value, bool) and expected is not bool
        if not isinstance(value, expected) or is_stray_bool:
            found = type(value).__name__.lower()
            raise FormatError(f"{where}: expected an attribute of type {expected.__name__.lower()}, found {found}")
        return value


class GraphDef(NamedTuple):
    """A whole graph: its nodes in the file's order, how many functions it defines, and the versions that it names."""

    nodes: tuple[GraphNode, ...]
    function_count: int
    producer: int | None
    min_consumer: int | None


def read_graph(data: memoryview, where: str) -> GraphDef:
    """Return the graph that the bytes hold; attributes stay bytes until they are asked for.

    Raises FormatError, which begins with `where`, for bytes that are no GraphDef, more than `NODE_LIMIT` nodes, two
    nodes of one name, and inputs that no node has.
    """
    parts: list[memoryview] = []
    function_count = 0
    versions: dict[int, int | memoryview] = {}
    for number, _, value in fields(data, where):
        if number == 1:
            parts.append(as_view(value, where))
            if len(parts) > NODE_LIMIT:
                raise FormatError(f"{where}: expected at most {NODE_LIMIT} nodes, as in a MobileNet, found more")
        elif number == 2:
            function_count += sum(number == 1 for number, _, _ in fields(as_view(value, where), where, depth=1))
        elif number == 4:
            versions = {number: value for number, _, value in fields(as_view(value, where), where, depth=1)}
    nodes = check_names((read_node(part, where) for part in parts), where)
    producer, min_consumer = (value if isinstance(value, int) else None for value in map(versions.get, (1, 2)))
    return GraphDef(nodes, function_count, producer, min_consumer)


def check_names(found: Iterable[GraphNode], where: str) -> tuple[GraphNode, ...]:
    """Return the nodes; raise FormatError, which begins with `where`, for two of one name and for inputs without one.

    A node that is not the first of its name is refused before the next one is read.
    """
    nodes: dict[str, GraphNode] = {}
    for node in found:
        if node.name in nodes:
            raise FormatError(f"{where}: expected each node to have its own name, found two of {node.name[:80]!r}")
        nodes[node.name] = node
    for node in nodes.values():
        for tensor in node.inputs:
            if find_node_name(tensor) not in nodes:
                raise FormatError(f"{where}: node {node.name}: its input {tensor[:80]!r} is no node of the graph")
    return tuple(nodes.values())


def find_node_name(tensor: str) -> str:
    """Return the node that makes a tensor.

    >>> find_node_name("batchnorm:1")
    'batchnorm'
    """
    return tensor.partition(":")[0]


def sort_nodes(graph: GraphDef, where: str) -> list[GraphNode]:
    """Return the nodes so that each comes after its inputs, otherwise as they lie in the file; refuse a cycle."""
    nodes = {node.name: node for node in graph.nodes}
    return sort_by_inputs(graph.nodes, lambda tensor: nodes[find_node_name(tensor)], where)


def read_node(data: memoryview, where: str) -> GraphNode:
    """Return a NodeDef; control inputs are left out."""
    name = op = ""
    inputs: list[str] = []
    attributes: dict[str, memoryview] = {}
    for number, _, value in fields(data, where, depth=1):
        if number == 1:
            name = read_text(value, where)
        elif number == 2:
            op = read_text(value, where)
        elif number == 3:
            tensor = read_text(value, where)
            if not tensor.startswith("^"):
                inputs.append(tensor.removesuffix(":0"))
        elif number == 5:
            entry = {number: value for number, _, value in fields(as_view(value, where), where, depth=2)}
            key, content = (as_view(entry.get(number, memoryview(b"")), where) for number in (1, 2))
            attributes[read_text(key, where)] = content
        if max(len(inputs), len(attributes)) > ENTRY_LIMIT:
            raise FormatError(f"{where}: expected at most {ENTRY_LIMIT} inputs and attributes of a node, found more")
    if not NODE_NAME.fullmatch(name) or not OPERATION_NAME.fullmatch(op):
        raise FormatError(
            f"{where}: expected each node to have a name and an operation, as TensorFlow spells them, "
            f"found {name[:80]!r} ({op[:80]!r})"
        )
    return GraphNode(name, op, tuple(inputs), attributes, where)
