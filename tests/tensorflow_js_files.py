"""TensorFlow.js models without its converter: a GraphDef, or Keras layers, as `model.json` and shards."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.tensorflow.graph_def import read_graph
from minimobile.formats.tensorflow.tensor_proto import Shape, Tensor, read_attribute

Weights = dict[str, NDArray[Any]]
SHARD = 1000  # bytes; the converter's have four million


def write_model(folder: Path, topology: dict[str, Any], weights: Weights, form: str = "float32", **more: Any) -> Path:
    """Write `model.json` and its shards; `form` is how floats are stored."""
    folder.mkdir(exist_ok=True)
    entries, content = [], b""
    for name, values in weights.items():
        entry, stored = store(name, values, form)
        entries.append(entry)
        content += stored
    parts = [content[start : start + SHARD] for start in range(0, len(content), SHARD)]
    names = [f"group1-shard{index + 1}of{len(parts)}.bin" for index in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(part)
    manifest = [{"paths": names, "weights": entries}]
    (folder / "model.json").write_text(json.dumps({**more, "modelTopology": topology, "weightsManifest": manifest}))
    return folder


def store(name: str, values: NDArray[Any], form: str) -> tuple[dict[str, Any], bytes]:
    """Return a weight's entry of the manifest, and its bytes."""
    entry = {"name": name, "shape": list(values.shape), "dtype": values.dtype.name}
    if values.dtype != np.float32 or form == "float32":
        return entry, values.tobytes()
    if form == "float16":
        return {**entry, "quantization": {"dtype": form}}, values.astype(np.float16).tobytes()
    low = float(values.min())
    scale = float(values.max() - low) / np.iinfo(form).max or 1.0
    steps = np.rint((values - low) / scale).astype(form)
    return {**entry, "quantization": {"dtype": form, "min": low, "scale": scale}}, steps.tobytes()


def graph_topology(content: bytes, old: bool = False) -> tuple[dict[str, Any], Weights]:
    """Return a GraphDef as TensorFlow.js has it, and its constants; `old`: texts as lists of bytes.

    Assertions are left out with their texts, as its converter leaves them out.
    """
    nodes: list[dict[str, Any]] = []
    weights: Weights = {}
    for node in read_graph(memoryview(content), "x").nodes:
        if node.op == "Assert" or (node.op == "Const" and node.tensor("value").values is None):
            continue
        attributes = {
            key: encode(read_attribute(value, "x"), old) for key, value in node.attributes.items() if key != "value"
        }
        if node.op == "Const":
            weights[node.name] = np.array(node.tensor("value").values)
        nodes.append({"name": node.name, "op": node.op, "input": list(node.inputs), "attr": attributes})
    return {"node": nodes, "library": {}, "versions": {}}, weights


def encode(value: Any, old: bool) -> dict[str, Any]:
    """Return an attribute in JSON."""
    assert not isinstance(value, Tensor)
    if isinstance(value, bool):
        return {"b": value}
    if isinstance(value, int):
        return {"i": str(value)}
    if isinstance(value, float):
        return {"f": value}
    if isinstance(value, str):
        return {"s": list(value.encode()) if old else base64.b64encode(value.encode()).decode()}
    if isinstance(value, Shape):
        return {"shape": {"dim": [{"size": str(size)} for size in value.sizes or ()]}}
    if value and isinstance(value[0], Shape):
        return {"list": {"shape": [encode(entry, old)["shape"] for entry in value]}}
    return {"list": {"i": [str(entry) for entry in value or ()]}}
