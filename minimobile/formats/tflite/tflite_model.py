"""A TFLite file as tensors and operators, all of them checked; what they compute is for others to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.signatures import TFLITE
from minimobile.formats.tflite.flatbuffer import FlatBuffer, Table
from minimobile.formats.tflite.tflite_schema import (
    ARRAY_TYPES,
    CUSTOM,
    KINDS,
    OTHER_NAMES,
    QUANTIZED_RANGES,
    TENSOR_TYPES,
    Kind,
)
from minimobile.storage.files import read_limited

FILE_LIMIT = 2**31 - 1  # FlatBuffers' own
ELEMENT_LIMIT = 2**31 - 1
RANK_LIMIT = 8
CHANNEL_LIMIT = 2**16
SHARED_BYTES = 2**22  # equal constants, such as zeros, may share a buffer
CUSTOM_CONTENT = "content"
"""The one option of a custom operator: the bytes in which it keeps what it is told."""
ABSENT = -1
"""The number of an input that is left out."""


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point), one pair for all, or one for each index of the axis `dimension`.

    Shapes: scales (1,) or (C,) float32, zero_points the same, int64.
    """

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    dimension: int


@dataclass(frozen=True)
class Tensor:
    """`shape` has 1 where the size is open; `open_sizes` are those axes. `data` is the array of a constant, else None.

    `dtype` is one of `tflite_schema.TENSOR_TYPES`; a constant of a type that NumPy has not got has no `data`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    data: NDArray[Any] | None = None
    is_constant: bool = False
    open_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operator:
    """One operation: its name in TFLite, the numbers of its tensors (`ABSENT` for an input left out), its options."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """Tensors, operators in the order of computation, and the numbers of the tensors that go in and come out."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str = ""
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def read_model(path: Path) -> Model:
    """Read a TFLite file; its constants are views of its bytes, not copies.

    Raises FormatError for anything out of place: offsets, numbers of tensors and buffers, sizes, quantisation, the
    order of operators, an operator's inputs and options. A model of several subgraphs is refused.
    """
    return parse_model(read_limited(path, FILE_LIMIT), str(path))


def parse_model(content: bytes, where: str) -> Model:
    """Return the model of a TFLite file's content; raises what `read_model` does, beginning with `where`."""
    return _Reader(content, where).read()


class _Reader:
    def __init__(self, content: bytes, where: str) -> None:
        self.content = content
        self.where = where
        self.constant_bytes = 0
        self.root = FlatBuffer(content, where).root(TFLITE)

    def read(self) -> Model:
        version = self.root.number(0, "uint32")
        if version != 3:
            self.fail("the schema version 3", f"{version}")
        graphs = self.root.tables(2)
        if len(graphs) != 1:
            self.fail("one subgraph, as a MobileNet has", f"{len(graphs)}")
        graph = graphs[0]
        buffers = [self.read_buffer(index, table) for index, table in enumerate(self.root.tables(4))]
        tensors = tuple(self.read_tensor(index, table, buffers) for index, table in enumerate(graph.tables(0)))
        codes = [self.read_code(table) for table in self.root.tables(1)]
        operators = tuple(
            self.read_operator(index, table, codes, len(tensors)) for index, table in enumerate(graph.tables(3))
        )
        inputs, outputs = (graph.numbers(index, "int32") for index in (1, 2))
        for name, numbers in (("inputs", inputs), ("outputs", outputs)):
            if not numbers or not all(0 <= number < len(tensors) for number in numbers):
                self.fail(f"{name} of the network among its {len(tensors)} tensors", f"{list(numbers[:9])}")
        self.check_order(tensors, operators, inputs, outputs)
        return Model(tensors, operators, inputs, outputs, self.root.string(3), self.read_metadata(buffers))

    def fail(self, expected: str, found: str) -> None:
        raise FormatError(f"{self.where}: expected {expected}, found {found}")

    def read_buffer(self, index: int, table: Table) -> NDArray[Any] | None:
        """Return a buffer's bytes; those of a very large file lie behind the FlatBuffer."""
        offset, size = table.number(1, "uint64"), table.number(2, "uint64")
        if offset > 1:
            if offset + size > len(self.content):
                self.fail(f"buffer {index} inside the file", f"{size} bytes at {offset}")
            return np.frombuffer(self.content, np.uint8, size, offset)
        return table.vector(0, "uint8")

    def count_bytes(self, count: int) -> None:
        """Refuse a file whose parts share so much that copies of them would take many times its size."""
        self.constant_bytes += count
        if self.constant_bytes > len(self.content) + SHARED_BYTES:
            self.fail(f"constants of at most the file's {len(self.content)} bytes", "more, in buffers that they share")

    def read_metadata(self, buffers: list[NDArray[Any] | None]) -> dict[str, bytes]:
        found = {}
        for table in self.root.tables(6):
            number = table.number(1, "uint32")
            if number >= len(buffers):
                self.fail(f"the metadata in one of {len(buffers)} buffers", f"it in buffer {number}")
            buffer = buffers[number]
            self.count_bytes(0 if buffer is None else buffer.size)
            found[table.string(0)] = b"" if buffer is None else buffer.tobytes()
        return found

    def read_tensor(self, index: int, table: Table, buffers: list[NDArray[Any] | None]) -> Tensor:
        name = table.string(3)
        what = f"tensor {index} ({name[:200]!r})"
        shape = table.numbers(0, "int32")
        elements = math.prod(shape)
        if len(shape) > RANK_LIMIT or not all(size >= 0 for size in shape) or elements > ELEMENT_LIMIT:
            self.fail(
                f"{what} with at most {RANK_LIMIT} sizes of 0 or more and {ELEMENT_LIMIT} elements", f"{shape[:9]}"
            )
        number = table.number(1, "int8")
        if not 0 <= number < len(TENSOR_TYPES):
            self.fail(f"{what} of one of the {len(TENSOR_TYPES)} known types", f"type {number}")
        dtype = TENSOR_TYPES[number]
        if table.table(6) is not None:
            self.fail(f"{what} stored densely", "a sparse one")
        buffer = table.number(2, "uint32")
        if buffer >= len(buffers):
            self.fail(f"{what} in one of {len(buffers)} buffers", f"it in buffer {buffer}")
        content = buffers[buffer]
        is_empty = 0 in shape
        if is_empty:
            content = np.zeros(0, np.uint8)
        is_constant = is_empty or (buffer > 0 and content is not None and content.size > 0)
        data = self.shape_constant(what, content, shape, dtype) if is_constant and dtype in ARRAY_TYPES else None
        signature = table.numbers(7, "int32")
        open_sizes = tuple(axis for axis, size in enumerate(signature) if size < 0)
        quantization = self.read_quantization(what, table.table(4), shape, dtype)
        return Tensor(name, shape, dtype, quantization, data, is_constant, open_sizes)

    def shape_constant(
        self, what: str, content: NDArray[Any] | None, shape: tuple[int, ...], dtype: str
    ) -> NDArray[Any]:
        """Return the bytes of a constant as an array; there must be exactly as many as it needs."""
        assert content is not None
        kind = np.dtype(dtype).newbyteorder("<")
        needed = math.prod(shape) * kind.itemsize
        if content.size != needed:
            self.fail(f"{needed} bytes for {what} of shape {shape}", f"{content.size}")
        self.count_bytes(needed)
        return np.frombuffer(content, kind).reshape(shape)

    def read_quantization(
        self, what: str, table: Table | None, shape: tuple[int, ...], dtype: str
    ) -> Quantization | None:
        if table is None or dtype not in QUANTIZED_RANGES:
            return None
        scales, zero_points = table.vector(2, "float32"), table.vector(3, "int64")
        if scales is None or scales.size == 0:
            return None
        if zero_points is None or zero_points.size == 0:
            zero_points = np.zeros(scales.size, np.int64)
        dimension = table.number(6, "int32")
        if table.number(4, "uint8") != 0:
            self.fail(f"{what} quantised with scales and zero points", "another scheme")
        count = shape[dimension] if 0 <= dimension < len(shape) else 1
        if scales.size not in (1, min(count, CHANNEL_LIMIT)) or zero_points.size not in (1, scales.size):
            found = f"{scales.size} and {zero_points.size}"
            self.fail(f"{what} with one scale and zero point, or {count} of each", found)
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            self.fail(f"{what} with finite scales above zero", f"{scales[:9].tolist()}")
        low, high = QUANTIZED_RANGES[dtype]
        if zero_points.min() < low or zero_points.max() > high:
            expected = f"{what} with zero points from {low} to {high}"
            self.fail(expected, f"{zero_points.min()} to {zero_points.max()}")
        return Quantization(scales, np.broadcast_to(zero_points, scales.shape), dimension)

    def read_code(self, table: Table) -> Kind:
        """Return the kind of operator that a code stands for; small numbers are in the older field."""
        number = max(table.number(0, "int8"), table.number(3, "int32"))
        if number == CUSTOM:
            return Kind(f"custom operator {table.string(1)[:100]!r}")
        return KINDS.get(number) or Kind(OTHER_NAMES.get(number, f"operator {number}"))

    def read_operator(self, index: int, table: Table, codes: list[Kind], tensor_count: int) -> Operator:
        code = table.number(0, "uint32")
        if code >= len(codes):
            self.fail(f"operator {index} with one of {len(codes)} codes", f"code {code}")
        kind = codes[code]
        what = f"operator {index} ({kind.name})"
        inputs, outputs = table.numbers(1, "int32"), table.numbers(2, "int32")
        if not all(ABSENT <= number < tensor_count for number in inputs):
            self.fail(f"inputs of {what} among {tensor_count} tensors", f"{list(inputs[:9])}")
        if not all(0 <= number < tensor_count for number in outputs) or not outputs:
            self.fail(f"outputs of {what} among {tensor_count} tensors", f"{list(outputs[:9])}")
        number = table.number(3, "uint8")
        if kind.name not in _CHECKED:
            content = table.vector(5, "uint8") if kind.name.startswith("custom operator") else None
            return Operator(kind.name, inputs, outputs, {} if content is None else {CUSTOM_CONTENT: content.tobytes()})
        needed, most = kind.inputs or (max(len(inputs), 1), len(inputs))
        if not needed <= len(inputs) <= most or ABSENT in inputs[:needed] or len(outputs) != 1:
            self.fail(f"{what} with {needed} to {most} inputs and one output", f"{list(inputs)} and {list(outputs)}")
        return Operator(kind.name, inputs, outputs, self.read_options(what, kind, number, table))

    def read_options(self, what: str, kind: Kind, number: int, table: Table) -> dict[str, Any]:
        if not kind.options:
            return {}
        if number not in (0, kind.options_type):
            self.fail(f"{what} with options of type {kind.options_type}", f"type {number}")
        options = table.table(4) if number else None
        found = {}
        for option in kind.options:
            value = option.default if options is None else options.number(option.field, option.kind, option.default)
            is_known = not option.choices or 0 <= value < len(option.choices)
            if not is_known or (option.minimum is not None and value < option.minimum):
                least = f" of at least {option.minimum}" if option.minimum is not None else ""
                self.fail(f"{what} with a known {option.name}{least}", f"{value}")
            found[option.name] = option.choices[value] if option.choices else value
        return found

    def check_order(
        self,
        tensors: tuple[Tensor, ...],
        operators: tuple[Operator, ...],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
    ) -> None:
        """Every tensor has one source, and is there before it is read."""
        ready = {number for number, tensor in enumerate(tensors) if tensor.is_constant}
        if ready & set(inputs) or len(set(inputs)) != len(inputs):
            self.fail("inputs of the network that are no constants, each once", f"{list(inputs[:9])}")
        ready |= set(inputs)
        for index, operator in enumerate(operators):
            what = f"operator {index} ({operator.kind})"
            for number in operator.inputs:
                if number != ABSENT and number not in ready:
                    self.fail(
                        f"the input {tensors[number].name[:200]!r} of {what} computed before it", "it later or never"
                    )
            for number in operator.outputs:
                if number in ready:
                    self.fail(f"one source of the tensor {tensors[number].name[:200]!r}", f"another in {what}")
                ready.add(number)
        missing = [number for number in outputs if number not in ready]
        if missing:
            self.fail("outputs that an operator computes", f"none for {tensors[missing[0]].name[:200]!r}")


_CHECKED = {kind.name for kind in KINDS.values()}
