"""An ONNX file with more outputs: every tensor between its input and its output, for a comparison to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.formats.onnx.model import Node, read_model, sort_nodes
from minimobile.formats.onnx.schema import GraphField, ModelField, NodeField, ValueField
from minimobile.formats.onnx.write_model import Field, Value, write_message, write_value
from minimobile.formats.protobuf import as_view, fields, read_text

MOVES = ("Pad", "Transpose", "Identity", "Cast")
"""What may stand between a picture and the first convolution and changes no value of it."""


@dataclass(frozen=True)
class Exposed:
    """A file of which tensors were made outputs: its content, what is fed, which tensors, and what holds their numbers.

    `outputs` are the tensors themselves, or of bytes the numbers that they stand for, where the file computes these.
    """

    content: bytes
    entry: str
    tensors: tuple[str, ...]
    outputs: tuple[str, ...]


def expose(path: Path, tensors: Iterable[str]) -> Exposed:
    """Return a file's content with `tensors` as outputs, to be fed where its network begins: after any scaling.

    Only the lists of outputs, and of nodes and inputs before that place, are changed. Raises FormatError for a file
    without convolutions.
    """
    model = read_model(path)
    nodes = sort_nodes(model, str(path))
    entry = _find_entry(nodes, str(path))
    makers = {name: node for node in nodes for name in node.outputs}
    existing = {value.name for value in model.outputs}
    wanted = tuple(dict.fromkeys(name for name in tensors if name in makers))
    numbers = {node.inputs[0]: node.name for node in nodes if node.op == "DequantizeLinear" and node.inputs}
    outputs = tuple(numbers.get(name, name) for name in wanted)
    content = path.read_bytes()
    if entry in makers:
        before = _names_before(makers, entry)
        content = _cut(content, before, {value.name for value in model.inputs}, entry, str(path))
        existing -= before
    added = (write_message([(ValueField.NAME, name)]) for name in outputs if name not in existing)
    graph = write_message([(GraphField.OUTPUT, value) for value in added])
    # A message that comes twice is merged, field by field: what is appended is added to the lists of the graph.
    return Exposed(content + write_message([(ModelField.GRAPH, graph)]), entry, wanted, outputs)


def _find_entry(nodes: list[Node], where: str) -> str:
    """Return the tensor that the network sees as its picture: the input, or what scaling in the graph makes of it."""
    makers = {name: node for node in nodes for name in node.outputs}
    first = next((node for node in nodes if node.op in ("Conv", "QLinearConv", "ConvInteger")), None)
    if first is None:
        raise FormatError(f"{where}: expected the convolutions of a network, found none")
    tensor = first.inputs[0]
    while tensor in makers and makers[tensor].op in MOVES:
        tensor = makers[tensor].inputs[0]
    is_quantized = tensor in makers and makers[tensor].op in ("DequantizeLinear", "QuantizeLinear")
    while is_quantized and tensor in makers:
        tensor = makers[tensor].inputs[0]
    return tensor


def _names_before(makers: Mapping[str, Node], tensor: str) -> set[str]:
    """Return the tensors that are computed on the way to `tensor`, and itself."""
    found, waiting = set(), [tensor]
    while waiting:
        name = waiting.pop()
        if name in makers and name not in found:
            found.add(name)
            waiting += makers[name].inputs
    return found


def _cut(content: bytes, before: set[str], inputs: set[str], entry: str, where: str) -> bytes:
    """Return the model without the nodes that make `before` and without its inputs, fed with `entry` instead."""
    kept: list[Field] = []
    for number, _, value in fields(memoryview(content), where):
        if number != ModelField.GRAPH:
            kept.append((number, value))
            continue
        graph: list[Field] = [(GraphField.INPUT, write_value(Value(entry, "float32", ("n", "a", "b", "c"))))]
        for part, _, inner in fields(as_view(value, where), where, 1):
            gone = {GraphField.NODE: NodeField.OUTPUT, GraphField.INPUT: ValueField.NAME}.get(GraphField(part))
            names = inputs if part == GraphField.INPUT else before
            if gone is None or not _texts(as_view(inner, where), gone, where) & names:
                graph.append((part, inner))
        kept.append((number, write_message(graph)))
    return write_message(kept)


def _texts(data: memoryview, number: int, where: str) -> set[str]:
    return {read_text(value, where) for field, _, value in fields(data, where, 2) if field == number}
