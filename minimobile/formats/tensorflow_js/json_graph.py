"""A graph in TensorFlow.js' JSON, which is GraphDef's, as the reader of frozen graphs takes it.

Constants have no values of their own but those of the weights by their names; fused operations become plain ones.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.tensorflow.graph_def import (
    ENTRY_LIMIT,
    NODE_LIMIT,
    NODE_NAME,
    OPERATION_NAME,
    GraphDef,
    GraphNode,
    check_names,
)
from minimobile.formats.tensorflow.tensor_proto import RANK_LIMIT, Shape, Tensor, name_type

_FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
_TYPES = {"DT_FLOAT": "float32", "DT_INT32": "int32", "DT_INT64": "int64", "DT_UINT8": "uint8", "DT_BOOL": "bool"}


def read_json_graph(topology: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], where: str) -> GraphDef:
    """Return the graph that `modelTopology` holds.

    Raises FormatError for what is none, for constants without weights, and for inputs that no node has.
    """
    entries = topology.get("node")
    if not isinstance(entries, list) or not 0 < len(entries) <= NODE_LIMIT:
        raise FormatError(f"{where}: expected a graph of 1 to {NODE_LIMIT} nodes as modelTopology, found another")
    read = (_read_node(entry, weights, where) for entry in entries)
    nodes = check_names((plain for node in read for plain in _expand(node)), where)
    library = topology.get("library")
    functions = library.get("function") if isinstance(library, Mapping) else None
    versions = topology.get("versions")
    producer = versions.get("producer") if isinstance(versions, Mapping) else None
    return GraphDef(
        nodes, len(functions) if isinstance(functions, list) else 0,
        producer if type(producer) is int else None, None,
    )  # fmt: skip


def _read_node(entry: Any, weights: Mapping[str, NDArray[Any]], where: str) -> GraphNode:
    values = entry if isinstance(entry, Mapping) else {}
    name, op, inputs, attributes = (
        values.get(key, default) for key, default in (("name", ""), ("op", ""), ("input", []), ("attr", {}))
    )
    is_named = isinstance(name, str) and isinstance(op, str) and NODE_NAME.fullmatch(name)
    if not is_named or not OPERATION_NAME.fullmatch(op):
        raise FormatError(
            f"{where}: expected each node to have a name and an operation, as TensorFlow spells them, found "
            f"{str(name)[:80]!r} ({str(op)[:80]!r})"
        )
    reader = _Attributes(f"{where}: node {name}")
    is_list = isinstance(inputs, list) and all(isinstance(tensor, str) for tensor in inputs)
    if not is_list or not isinstance(attributes, Mapping):
        reader.fail("a list of inputs and a table of attributes")
    if max(len(inputs), len(attributes)) > ENTRY_LIMIT:
        reader.fail(f"at most {ENTRY_LIMIT} inputs and attributes")
    decoded: dict[str, Any] = {key: reader.read(value) for key, value in attributes.items() if key != "value"}
    if op == "Const":
        if name not in weights:
            raise FormatError(f"{where}: node {name}: expected its values in weightsManifest, found none of that name")
        decoded["value"] = Tensor(weights[name].dtype.name, weights[name].shape, weights[name])
    plain = tuple(tensor.removesuffix(":0") for tensor in inputs if not tensor.startswith("^"))
    return GraphNode(name, op, plain, decoded, where)


def _expand(node: GraphNode) -> list[GraphNode]:
    """Return a fused operation as the plain ones that it stands for, the last of which has its name."""
    plain = _FUSED.get(node.op)
    if plain is None:
        return [node]
    fused: Any = node.attributes.get("fused_ops", ())
    if not fused or not all(isinstance(op, str) for op in fused) or len(node.inputs) < 2 + ("BiasAdd" in fused):
        found = f"{len(node.inputs)} inputs and {len(fused)} parts"
        raise FormatError(f"{node.where}: node {node.name} ({node.op}): expected the parts of it, found {found}")
    if "FusedBatchNorm" in fused:
        raise FormatError(f"{node.where}: node {node.name} ({node.op}): expected a fused bias, found FusedBatchNorm")
    names = [*(f"{node.name}/fused_{index}" for index in range(len(fused))), node.name]
    parts = [dataclasses.replace(node, name=names[0], op=plain, inputs=node.inputs[:2])]
    for index, op in enumerate(fused):
        bias = (node.inputs[2],) if op == "BiasAdd" else ()
        parts.append(GraphNode(names[index + 1], op, (names[index], *bias), {}, node.where))
    return parts


class _Attributes:
    """Attributes of one node, as `tensor_proto.read_attribute` gives them."""

    def __init__(self, where: str) -> None:
        self.where = where

    def read(self, value: Any) -> Any:
        """Return an AttrValue; None for the kinds that no operation of a MobileNet has."""
        if not isinstance(value, Mapping) or len(value) > 1:
            self.fail("attributes of one kind each")
        for kind, content in value.items():
            if kind == "b":
                return content if isinstance(content, bool) else self.fail("true or false")
            if kind == "i":
                return self.read_integer(content)
            if kind == "f":
                is_number = isinstance(content, int | float) and not isinstance(content, bool)
                return float(content) if is_number else self.fail("a number")
            if kind == "s":
                return self.read_text(content)
            if kind == "type":
                return name_type(content) if type(content) is int else _TYPES.get(str(content), str(content)[:40])
            if kind == "shape":
                return self.read_shape(content)
            if kind == "list":
                return self.read_list(content)
        return None

    def read_integer(self, value: Any) -> int:
        """Return an integer, which JSON has as a text where it may have 64 bits."""
        if type(value) is int:
            return value
        if not isinstance(value, str) or not value.removeprefix("-").isdecimal() or len(value) > 20:
            self.fail("whole numbers")
        return int(value)

    def read_text(self, value: Any) -> str:
        """Return a text: base64, or in older files a list of bytes."""
        try:
            if isinstance(value, list):
                return bytes(value).decode(errors="replace")
            return base64.b64decode(value, validate=True).decode(errors="replace")
        except (binascii.Error, TypeError, ValueError):
            self.fail("texts in base64 or as lists of bytes")

    def read_shape(self, value: Any) -> Shape:
        sizes = value.get("dim", []) if isinstance(value, Mapping) else None
        if not isinstance(sizes, list) or len(sizes) > RANK_LIMIT or not all(isinstance(s, Mapping) for s in sizes):
            self.fail(f"shapes of at most {RANK_LIMIT} sizes")
        if value.get("unknownRank"):
            return Shape(None)
        return Shape(tuple(self.read_integer(size.get("size", 0)) for size in sizes))

    def read_list(self, value: Any) -> tuple[Any, ...]:
        parts = value if isinstance(value, Mapping) else {}
        readers = (("i", self.read_integer), ("shape", self.read_shape), ("s", self.read_text))
        for kind, reader in readers:
            found = parts.get(kind)
            if found:
                if not isinstance(found, list) or len(found) > ENTRY_LIMIT:
                    self.fail(f"lists of at most {ENTRY_LIMIT} entries")
                return tuple(reader(entry) for entry in found)
        return ()

    def fail(self, expected: str) -> NoReturn:
        raise FormatError(f"{self.where}: expected {expected}, found another")
