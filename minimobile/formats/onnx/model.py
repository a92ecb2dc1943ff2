"""ONNX's ModelProto: nodes with attributes, constants, inputs and outputs; nothing in it is ever executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.node_order import sort_by_inputs
from minimobile.formats.onnx.schema import (
    DEFAULT_DOMAINS,
    AttributeField,
    DimensionField,
    FunctionField,
    GraphField,
    ModelField,
    NodeField,
    OperatorSetField,
    ShapeField,
    TensorTypeField,
    TypeField,
    ValueField,
)
from minimobile.formats.onnx.tensors import (
    RANK_LIMIT,
    TYPE_NAMES,
    Surroundings,
    Tensor,
    read_entry,
    read_integers,
    read_tensor,
)
from minimobile.formats.protobuf import FIXED32, as_number, as_view, fields, read_text, signed
from minimobile.formats.tensorflow.graph_def import GraphNode
from minimobile.storage.files import read_limited

BYTE_LIMIT = 2**30  # the largest MobileNet has 25 MB
NODE_LIMIT = 20_000  # exports of DeepLab without folding have 3,000
EDGE_LIMIT = 100_000  # inputs and outputs of all nodes
TENSOR_LIMIT = 20_000
ENTRY_LIMIT = 1_000  # inputs, outputs or attributes of one node
LIST_LIMIT = 2**16  # numbers of one attribute
NAME_LIMIT = 1_000  # characters
_ENDS = (GraphField.INPUT, GraphField.OUTPUT)
_LIMITS = {
    int(GraphField.NODE): (NODE_LIMIT, "nodes"),
    int(GraphField.INITIALIZER): (TENSOR_LIMIT, "constants"),
    **{int(number): (TENSOR_LIMIT, "inputs and outputs") for number in _ENDS},
}
OPERATOR_SETS = range(7, 29)
"""Those whose operators are known here: a newer one may give an operator another meaning, or a further attribute."""
OTHER_DOMAIN = "::"
"""Between domain and operation, where the domain is not ONNX's own."""


@dataclass(frozen=True)
class Node(GraphNode):
    """One node. `name` is that of its first result, `label` its own; an input that is left out is an empty text.

    Attributes are integers, floats, texts, tensors, and tuples of the first three; None for those of other kinds.
    """

    label: str
    outputs: tuple[str, ...]

    @property
    def title(self) -> str:
        """Return what messages call the node: its own name, or that of its result."""
        return (self.label or self.name)[:200]


class Value(NamedTuple):
    """An input or an output of the graph: sizes are -1 where they are open; None where nothing is said of them."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Model:
    """A model: its nodes in the file's order, its constants by name, and what it says of itself.

    `inputs` are those without a constant of their name. `opset` is the version of ONNX's operators.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opset: int
    producer: str
    metadata: Mapping[str, str]
    size: int
    """Bytes of the file, and of the files beside it that hold its tensors."""


def read_model(path: Path) -> Model:
    """Return the model that a file holds, its tensors in files beside it included.

    Raises FormatError for bytes that are none, more nodes or tensors than any MobileNet has, tensors that do not have
    their bytes, and files outside the model's folder.
    """
    return _Reader(path).read()


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self.around = Surroundings(path.parent)

    def read(self) -> Model:
        content = read_limited(self.path, BYTE_LIMIT)
        graphs: list[memoryview] = []
        versions: dict[str, int] = {}
        texts: dict[int, str] = {}
        metadata: dict[str, str] = {}
        for number, _, value in fields(memoryview(content), self.where):
            if number == ModelField.GRAPH:
                graphs.append(as_view(value, self.where))
            elif number == ModelField.OPSET_IMPORT:
                domain, version = self.read_operator_set(as_view(value, self.where))
                versions[domain] = version
            elif number in (ModelField.PRODUCER_NAME, ModelField.PRODUCER_VERSION):
                texts[number] = read_text(value, self.where)[:80]
            elif number == ModelField.METADATA_PROPS:
                key, text = read_entry(as_view(value, self.where), self.where, 1)
                metadata[key] = text
                self.check_count(len(metadata), TENSOR_LIMIT, "entries of metadata")
            elif number == ModelField.FUNCTIONS:
                self.refuse_function(as_view(value, self.where))
        if len(graphs) != 1:
            self.fail("a model with one graph", f"{len(graphs)}")
        opset = next((versions[domain] for domain in DEFAULT_DOMAINS if domain in versions), 1)
        if opset not in OPERATOR_SETS:
            known = f"{OPERATOR_SETS[0]} to {OPERATOR_SETS[-1]}"
            self.fail(
                f"operator set {known}, which are known here",
                f"{opset}; export with one of them, or convert the file with onnx.version_converter.convert_version",
            )
        producer = " ".join(texts[number] for number in sorted(texts) if texts[number])
        return self.read_graph(graphs[0], opset, producer, metadata, len(content))

    def read_graph(
        self, data: memoryview, opset: int, producer: str, metadata: Mapping[str, str], size: int
    ) -> Model:  # fmt: skip
        parts: dict[int, list[memoryview]] = {number: [] for number in _LIMITS}
        for number, _, value in fields(data, self.where, 1):
            if number in parts:
                parts[number].append(as_view(value, self.where))
                self.check_count(len(parts[number]), *_LIMITS[number])
            elif number == GraphField.SPARSE_INITIALIZER:
                self.fail("constants with all of their numbers", "a sparse one")
        nodes = []
        edges = 0
        for part in parts[GraphField.NODE]:
            nodes.append(self.read_node(part))
            edges += len(nodes[-1].inputs) + len(nodes[-1].outputs)
            self.check_count(edges, EDGE_LIMIT, "inputs and outputs of nodes")
        inputs, outputs = ([self.read_value(part) for part in parts[number]] for number in _ENDS)
        constants: dict[str, Tensor] = {}
        for part in parts[GraphField.INITIALIZER]:
            tensor = read_tensor(part, self.where, 2, self.around)
            if tensor.name in constants:
                self.fail("each constant to have its own name", f"two of {tensor.name[:80]!r}")
            constants[tensor.name] = tensor
        needed = tuple(value for value in inputs if value.name not in constants)
        self.check_names(nodes, constants, needed)
        whole = size + sum(self.around.spent.values())
        return Model(tuple(nodes), constants, needed, tuple(outputs), opset, producer, metadata, whole)

    def check_names(self, nodes: list[Node], constants: Mapping[str, Tensor], inputs: tuple[Value, ...]) -> None:
        """Refuse tensors of one name, and inputs that nothing computes."""
        known = {*constants, *(value.name for value in inputs)}
        for node in nodes:
            for name in filter(None, node.outputs):
                if name in known:
                    self.fail("each result to have its own name", f"two of {name[:80]!r}")
                known.add(name)
        for node in nodes:
            for name in filter(None, node.inputs):
                if name not in known:
                    self.fail(f"the inputs of node {node.title} to be results, constants or inputs", f"{name[:80]!r}")

    def read_node(self, data: memoryview) -> Node:
        texts: dict[int, list[str]] = {}
        attributes: dict[str, Any] = {}
        for number, _, value in fields(data, self.where, 2):
            if number in (NodeField.INPUT, NodeField.OUTPUT, NodeField.NAME, NodeField.OP_TYPE, NodeField.DOMAIN):
                texts.setdefault(number, []).append(read_text(value, self.where))
                self.check_count(len(texts[number]), ENTRY_LIMIT, "inputs and outputs of a node")
                if len(texts[number][-1]) > NAME_LIMIT:
                    self.fail(f"names of at most {NAME_LIMIT} characters", f"{len(texts[number][-1])}")
            elif number == NodeField.ATTRIBUTE:
                name, found = self.read_attribute(as_view(value, self.where))
                attributes[name] = found
                self.check_count(len(attributes), ENTRY_LIMIT, "attributes of a node")
        label, op, domain = (
            texts.get(number, [""])[-1] for number in (NodeField.NAME, NodeField.OP_TYPE, NodeField.DOMAIN)
        )
        outputs = tuple(texts.get(NodeField.OUTPUT, ()))
        if not op or not outputs or not outputs[0]:
            self.fail("each node to have an operation and a result", f"{op[:80]!r} ({label[:80]!r})")
        kind = op if domain in DEFAULT_DOMAINS else f"{domain}{OTHER_DOMAIN}{op}"
        inputs = tuple(texts.get(NodeField.INPUT, ()))
        return Node(outputs[0], kind, inputs, attributes, self.where, label, outputs)

    def read_attribute(self, data: memoryview) -> tuple[str, Any]:
        name = ""
        found: Any = None
        listed: list[Any] = []
        is_list = False
        for number, wire_type, value in fields(data, self.where, 3):
            if number == AttributeField.NAME:
                name = read_text(value, self.where)
            elif number in (AttributeField.F, AttributeField.I):
                plain = as_number(value, self.where)
                found = self.float_of(plain) if number == AttributeField.F else signed(plain)
            elif number == AttributeField.S:
                found = bytes(as_view(value, self.where)).decode(errors="replace")
            elif number == AttributeField.T:
                found = read_tensor(as_view(value, self.where), self.where, 4, self.around)
            elif number in (AttributeField.FLOATS, AttributeField.INTS, AttributeField.STRINGS):
                is_list = True
                if number == AttributeField.STRINGS:
                    listed.append(bytes(as_view(value, self.where)).decode(errors="replace"))
                elif number == AttributeField.INTS:
                    listed += read_integers(wire_type, value, LIST_LIMIT, self.where)
                else:
                    listed += self.read_floats(wire_type, value)
                self.check_count(len(listed), LIST_LIMIT, "numbers of an attribute")
        return name, tuple(listed) if is_list else found

    def read_floats(self, wire_type: int, value: int | memoryview) -> Iterator[float]:
        if isinstance(value, int):
            if wire_type != FIXED32:
                self.fail("numbers of 32 bits", "others")
            yield self.float_of(value)
        elif len(value) % 4 or len(value) > 4 * LIST_LIMIT:
            self.fail("whole numbers of 32 bits", "others")
        else:
            yield from np.frombuffer(value, "<f4").tolist()

    def float_of(self, bits: int) -> float:
        return float(np.uint32(bits & 0xFFFFFFFF).view(np.float32))

    def read_value(self, data: memoryview) -> Value:
        name, dtype = "", "type 0"
        shape: tuple[int, ...] | None = None
        for number, _, value in fields(data, self.where, 2):
            if number == ValueField.NAME:
                name = read_text(value, self.where)
            elif number == ValueField.TYPE:
                for kind, _, content in fields(as_view(value, self.where), self.where, 3):
                    if kind == TypeField.TENSOR_TYPE:
                        dtype, shape = self.read_tensor_type(as_view(content, self.where))
        return Value(name, dtype, shape)

    def read_tensor_type(self, data: memoryview) -> tuple[str, tuple[int, ...] | None]:
        dtype, shape = "type 0", None
        for number, _, value in fields(data, self.where, 4):
            if number == TensorTypeField.ELEM_TYPE:
                code = as_number(value, self.where)
                dtype = TYPE_NAMES.get(code, f"type {code}")
            elif number == TensorTypeField.SHAPE:
                shape = self.read_shape(as_view(value, self.where))
        return dtype, shape

    def read_shape(self, data: memoryview) -> tuple[int, ...]:
        sizes = []
        for number, _, value in fields(data, self.where, 5):
            if number == ShapeField.DIM:
                entry = {key: size for key, _, size in fields(as_view(value, self.where), self.where, 6)}
                size = entry.get(DimensionField.VALUE)
                sizes.append(-1 if size is None else signed(as_number(size, self.where)))
                self.check_count(len(sizes), RANK_LIMIT, "sizes of a shape")
        return tuple(sizes)

    def read_operator_set(self, data: memoryview) -> tuple[str, int]:
        found = {number: value for number, _, value in fields(data, self.where, 1)}
        domain = read_text(found.get(OperatorSetField.DOMAIN, memoryview(b"")), self.where)
        return domain, signed(as_number(found.get(OperatorSetField.VERSION, 0), self.where))

    def refuse_function(self, data: memoryview) -> NoReturn:
        found = {number: value for number, _, value in fields(data, self.where, 1)}
        name = read_text(found.get(FunctionField.NAME, memoryview(b"")), self.where)
        self.fail(
            "a graph of plain nodes",
            f"the function {name[:80]!r}; put it in their place with onnx.inliner.inline_local_functions",
        )

    def check_count(self, count: int, limit: int, what: str) -> None:
        if count > limit:
            self.fail(f"at most {limit} {what}, as in a MobileNet", "more")

    def fail(self, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: expected {expected}, found {found}")


def sort_nodes(model: Model, where: str) -> list[Node]:
    """Return the nodes so that each comes after those whose results it reads; refuse a cycle."""
    makers = {name: node for node in model.nodes for name in node.outputs}
    return sort_by_inputs(model.nodes, makers.get, where)
