"""SavedModels written byte by byte: the tiny V1 of `graph_writer` in a function that another one calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bundles import write_bundle
from graph_writer import const, field, node, placeholder, shape_proto, tiny_v1

from minimobile.formats.protobuf import fields, read_text

INNER, OUTER = "__inference_call_1", "__inference_signature_wrapper_2"


def function(name: str, arguments: Sequence[str], results: dict[str, str], nodes: bytes) -> bytes:
    """Return an entry of a library; `nodes` are those of a GraphDef, `results` {name: tensor}."""
    signature = field(1, name) + b"".join(field(2, field(1, argument)) for argument in arguments)
    signature += b"".join(field(3, field(1, result)) for result in results)
    body = b"".join(field(3, bytes(value)) for number, _, value in fields(memoryview(nodes), "") if number == 1)
    returned = b"".join(field(4, field(1, key) + field(2, tensor)) for key, tensor in results.items())
    return field(1, field(1, signature) + body + returned)


def call(name: str, called: str, *inputs: str) -> bytes:
    """Return a node that calls a function."""
    return node(name, "StatefulPartitionedCall", *inputs, f=field(10, field(1, called)))


def texts(name: str, values: Sequence[str]) -> bytes:
    """Return a constant of texts."""
    tensor = field(1, 7) + field(2, shape_proto([len(values)])) + b"".join(field(8, value) for value in values)
    return node(name, "Const", value=field(8, tensor))


def saved_model(
    graph: bytes, library: bytes, output: str, tags: str = "serve", signature: str = "serving_default"
) -> bytes:
    """Return the content of saved_model.pb."""
    served = field(2, field(1, "logits") + field(2, field(1, f"{output}:0")))
    meta = field(1, field(4, tags)) + field(2, graph + field(2, library))
    return field(1, 1) + field(2, meta + field(5, field(1, signature) + field(2, served)))


def write_saved_model(folder: Path) -> dict[str, np.ndarray]:
    """Write the tiny V1, its variables restored as TensorFlow 2 restores them; returns its numbers by name."""
    graph, numbers = tiny_v1()
    names = list(numbers)
    kept, reads = [], []
    for number, _, value in fields(memoryview(graph), ""):
        name = next(read_text(text, "") for part, _, text in fields(value, "") if part == 1)
        if number == 1 and name not in (*names, "input"):
            kept.append(field(1, bytes(value)))
    arguments = [f"handle_{index}" for index in range(len(names))]
    for name, argument in zip(names, arguments, strict=True):
        reads.append(node(name, "ReadVariableOp", argument))
    inner = function(INNER, ["input", *arguments], {"identity": "flat:output:0"}, b"".join(reads + kept))
    outer = function(
        OUTER, ["input", *arguments], {"scores": "call:output:0"}, call("call", INNER, "input", *arguments)
    )
    main = [placeholder("serving_input")]
    main += [node(f"variable_{index}", "VarHandleOp") for index in range(len(names))]
    handles = [f"variable_{index}" for index in range(len(names))]
    main.append(call("StatefulPartitionedCall", OUTER, "serving_input", *handles))
    main += [const("file", 0), texts("names", [f"layers/{name}" for name in names]), texts("slices", [""] * len(names))]
    main.append(node("restore", "RestoreV2", "file", "names", "slices"))
    for index, handle in enumerate(handles):
        main.append(node(f"copy_{index}", "Identity", f"restore:{index}" if index else "restore"))
        main.append(node(f"assign_{index}", "AssignVariableOp", handle, f"copy_{index}"))
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(saved_model(b"".join(main), inner + outer, "StatefulPartitionedCall"))
    write_bundle(folder / "variables" / "variables", {f"layers/{name}": values for name, values in numbers.items()})
    return numbers
