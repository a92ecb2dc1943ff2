"""TensorFlow's SavedModels (TensorFlow 1 and 2, Keras 3's `export`): a graph, its functions, a checkpoint beside it.

Source: saved_model.proto, meta_graph.proto of TensorFlow (tensorflow/core/protobuf). Nothing of it is executed: what
restores the variables is read to learn which array is whose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description
from minimobile.formats.protobuf import as_view, fields, read_text
from minimobile.formats.signatures import SAVED_MODEL
from minimobile.formats.tensorflow.graph_def import GraphDef, GraphNode, find_node_name, read_graph
from minimobile.formats.tensorflow.graph_functions import inline, read_library
from minimobile.formats.tensorflow.tensor_bundle import Bundle
from minimobile.formats.tensorflow.tensor_proto import Tensor
from minimobile.formats.tensorflow.tensorflow_graph import describe_graph, read_network
from minimobile.networks.config import Config
from minimobile.storage.files import read_limited

VARIABLES = Path("variables") / "variables"
SERVING = "serving_default"
BYTE_LIMIT = 2**30
TEXT_LIMIT = 2**16  # names of variables
_HANDLES = ("VarHandleOp", "VariableV2", "Variable")
_ASSIGNMENTS = ("AssignVariableOp", "Assign")
_PASSED = ("Identity", "NoOp", "ReadVariableOp")


class _Signature(NamedTuple):
    name: str
    outputs: tuple[str, ...]


def read(path: Path, config: Config | None = None) -> Checkpoint:
    """Read a MobileNet V1, V2 or DeepLab from a SavedModel: the signature that serves, its functions put in place.

    `config` replaces the one that is found. Raises FormatError for files that are damaged or hostile, variables that no
    checkpoint beside the graph has, operations that no MobileNet has, and networks that are none.
    """
    folder = path if path.is_dir() else path.parent
    graph, size = _open(folder)
    return read_network(graph, size, folder, {"format": "saved-model", "producer": _name_producer(graph)}, config)


def describe(path: Path) -> Description:
    """Return what is in a SavedModel: the constants and variables of what it serves, and its operations."""
    folder = path if path.is_dir() else path.parent
    graph, size = _open(folder)
    return describe_graph(graph, size, folder, "TensorFlow SavedModel", _name_producer(graph))


def _name_producer(graph: GraphDef) -> str:
    return f"TensorFlow, graph version {graph.producer}"


def _open(folder: Path) -> tuple[GraphDef, int]:
    """Return the flat graph of what is served, its variables as constants, and the size of all files."""
    file, where = folder / SAVED_MODEL, str(folder / SAVED_MODEL)
    content = memoryview(read_limited(file, BYTE_LIMIT))
    data, signatures = _choose_meta_graph(content, where)
    signature = next((found for found in signatures if found.name == SERVING), None) or next(iter(signatures), None)
    if signature is None or not signature.outputs:
        raise FormatError(
            f"{where}: expected a signature that says what is computed, such as {SERVING}, found none; export the "
            "model with model.export(folder), or with tf.saved_model.save(model, folder, signatures=...)"
        )
    graph = read_graph(data, where)
    plain, outputs = inline(graph.nodes, signature.outputs, read_library(data, where), where)
    nodes = {node.name: node for node in plain}
    restored = _find_restored(nodes, where)
    needed = _find_needed(nodes, outputs, where)
    bundle = Bundle(folder / VARIABLES) if any(nodes[name].op in _HANDLES for name in needed) else None
    size = len(content) + (0 if bundle is None else sum(found.size for found in bundle.variables.values()))
    flat = _as_constants(nodes, needed, restored, bundle, where)
    return GraphDef(flat, 0, graph.producer, graph.min_consumer), size


def _choose_meta_graph(content: memoryview, where: str) -> tuple[memoryview, list[_Signature]]:
    """Return the GraphDef and the signatures of the first graph that serves."""
    for number, _, value in fields(content, where):
        if number != 2:
            continue
        graph = memoryview(b"")
        tags: list[str] = []
        signatures: list[_Signature] = []
        for part, _, inner in fields(as_view(value, where), where, 1):
            if part == 1:
                tags += [read_text(x, where) for n, _, x in fields(as_view(inner, where), where, 2) if n == 4]
            elif part == 2:
                graph = as_view(inner, where)
            elif part == 5:
                signatures.append(_read_signature(as_view(inner, where), where))
        if "serve" in tags:
            return graph, [found for found in signatures if not found.name.startswith("__")]
    raise FormatError(f"{where}: expected a graph that is tagged 'serve', found none")


def _read_signature(data: memoryview, where: str) -> _Signature:
    """Return the name of an entry of `signature_def`, and the tensors that it gives back."""
    name, outputs = "", []
    for number, _, value in fields(data, where, 2):
        if number == 1:
            name = read_text(value, where)
        elif number == 2:
            for part, _, entry in fields(as_view(value, where), where, 3):
                if part == 2:  # {what it is called: TensorInfo}
                    for key, _, info in fields(as_view(entry, where), where, 4):
                        if key == 2:
                            found = fields(as_view(info, where), where, 5)
                            outputs += [read_text(x, where).removesuffix(":0") for n, _, x in found if n == 1]
    return _Signature(name, tuple(outputs))


def _find_needed(nodes: Mapping[str, GraphNode], outputs: Sequence[str], where: str) -> set[str]:
    """Return the nodes that the outputs depend on."""
    needed: set[str] = set()
    waiting = [find_node_name(tensor) for tensor in outputs]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        if name not in nodes:
            raise FormatError(f"{where}: expected its graph to compute {name[:80]!r}, found no such node")
        needed.add(name)
        waiting += [find_node_name(tensor) for tensor in nodes[name].inputs]
    return needed


def _find_restored(nodes: Mapping[str, GraphNode], where: str) -> dict[str, str]:
    """Return {node of a variable: its name in the checkpoint}, from what restores variables.

    Keras 3's models under `tf.saved_model.save` compute with variables of which the restored ones are copies.
    """
    names = {
        node.name: _read_texts(nodes[node.inputs[1]], where)
        for node in nodes.values()
        if node.op == "RestoreV2" and len(node.inputs) == 3 and node.inputs[1] in nodes
    }
    found: dict[str, str] = {}
    origins: dict[str, str] = {}
    passed: dict[str, str] = {}
    for node in nodes.values():
        if node.op not in _ASSIGNMENTS or len(node.inputs) != 2:
            continue
        variable, value = (_pass(nodes, tensor, passed) for tensor in node.inputs)
        source, _, index = value.partition(":")
        texts, place = names.get(source, ()), int(index) if index.isdecimal() else 0
        if place < len(texts):
            found[find_node_name(variable)] = texts[place]
        elif source in nodes and nodes[source].op in _HANDLES:
            origins[find_node_name(variable)] = source
    return {origin: found[copy] for copy, origin in origins.items() if copy in found} | found


def _pass(nodes: Mapping[str, GraphNode], tensor: str, known: dict[str, str]) -> str:
    """Return the tensor that one stands for, behind nodes that only pass on; `known` are those that have been found."""
    before: list[str] = []
    while tensor not in known:
        node = nodes.get(find_node_name(tensor))
        if node is None or node.op not in _PASSED or not node.inputs or len(before) > len(nodes):
            known[tensor] = tensor
        else:
            before.append(tensor)
            tensor = node.inputs[0]
    known.update(dict.fromkeys(before, known[tensor]))
    return known[tensor]


def _read_texts(node: GraphNode, where: str) -> tuple[str, ...]:
    """Return a constant of texts."""
    value = node.attributes.get("value")
    texts: list[str] = []
    for number, _, tensor in fields(value if isinstance(value, memoryview) else memoryview(b""), where, 3):
        if number == 8:
            texts += [read_text(x, where) for n, _, x in fields(as_view(tensor, where), where, 4) if n == 8]
    if len(texts) > TEXT_LIMIT:
        raise FormatError(f"{where}: expected at most {TEXT_LIMIT} names of variables, found more")
    return tuple(texts)


def _as_constants(
    nodes: Mapping[str, GraphNode], needed: set[str], restored: Mapping[str, str], bundle: Bundle | None, where: str
) -> tuple[GraphNode, ...]:
    """Return the needed nodes, each variable a constant under its own name, and what reads it a copy."""
    flat = []
    for name, node in nodes.items():
        if name not in needed:
            continue
        if node.op in _HANDLES:
            flat.append(_as_constant(name, restored.get(name, ""), bundle, where))
        else:
            flat.append(dataclasses.replace(node, op="Identity") if node.op == "ReadVariableOp" else node)
    return tuple(flat)


def _as_constant(name: str, key: str, bundle: Bundle | None, where: str) -> GraphNode:
    if bundle is None or key not in bundle:
        raise FormatError(
            f"{where}: variable {name[:80]}: expected what restores it to name an array of the checkpoint in "
            f"variables/, found {key[:80]!r}"
        )
    values = bundle[key]
    return GraphNode(name, "Const", (), {"value": Tensor(values.dtype.name, values.shape, values)}, where)
